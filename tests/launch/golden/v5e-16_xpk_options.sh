# demo: 16 chips, 4 hosts (v5e-16)

# once, run it yourself: keep the value of WANDB_API_KEY, a variable of this shell (export WANDB_API_KEY=...)
bash \
    -c \
    ': "${WANDB_API_KEY:?}"; printf %s "$WANDB_API_KEY" | gcloud secrets create WANDB_API_KEY --data-file=- --project=my-project'

# once, run it yourself: keep the value of OTHER_KEY, a variable of this shell (export OTHER_KEY=...)
bash \
    -c \
    ': "${OTHER_KEY:?}"; printf %s "$OTHER_KEY" | gcloud secrets create OTHER_KEY --data-file=- --project=my-project'

# once, run it yourself: create the cluster and its slices, which cost money from now on; RESERVATION is the name of yours
xpk cluster create \
    --cluster=pods \
    --zone=us-west4-a \
    --project=my-project \
    --tpu-type=v5litepod-16 \
    --num-slices=1 \
    --reservation=RESERVATION

# gives kubectl access to the cluster
xpk workload list --cluster=pods --zone=us-west4-a --project=my-project --filter-by-job=demo

# only if kubectl finds no JobSet: xpk makes and applies it
xpk workload create \
    --workload=demo \
    --cluster=pods \
    --zone=us-west4-a \
    --project=my-project \
    --tpu-type=v5litepod-16 \
    --num-slices=1 \
    --no-use-parallel-containers \
    --docker-name=train \
    --docker-image=ghcr.io/me/switch_jax@sha256:0000000000000000000000000000000000000000000000000000000000000000 \
    --max-restarts=1000 \
    --restart-on-exit-codes=1,4-126 \
    --termination-grace-period-seconds=600 \
    --env=JAX_COMPILATION_CACHE_DIR=gs://my-bucket/runs/demo/compiled \
    --env=JAX_PLATFORMS=tpu \
    --command='with_secrets my-project WANDB_API_KEY OTHER_KEY -- python -m switch_jax.launch.restart_limit gs://my-bucket/runs/demo 7 -- switch_jax train --multihost --gin_search_paths=a,b --gin_file=runs/demo_switch.gin --gin.MODEL_DIR=gs://my-bucket/runs/demo --gin.MESH_DATA=2 --gin.MESH_EXPERT=8 --gin.GROUP_SIZE=64 --gin.DATA_STREAMS=4 --gin.TASK_FEATURE_LENGTHS='"'"'{'"'"'"'"'"'"'"'"'inputs'"'"'"'"'"'"'"'"': 64, '"'"'"'"'"'"'"'"'targets'"'"'"'"'"'"'"'"': 32}'"'"' --seqio_additional_cache_dirs=gs://my-data/cache --change_task'

# repeated every 10 s until all pods run
kubectl get pods \
    --selector=jobset.sigs.k8s.io/jobset-name=demo \
    --field-selector=status.phase=Running \
    --output=name

# prints the output of all hosts; with --since-time=LAST_LINE after a lost connection
kubectl logs \
    --selector=jobset.sigs.k8s.io/jobset-name=demo \
    --container=train \
    --prefix \
    --ignore-errors \
    --max-log-requests=5 \
    --follow \
    --tail=-1

# prints JobSet if it exists, and Completed or Failed if it has ended
kubectl get jobset demo --ignore-not-found --output='jsonpath={.kind} {.status.terminalState}'

# only if it has failed: the exit codes
kubectl get pods \
    --selector=jobset.sigs.k8s.io/jobset-name=demo \
    --output='jsonpath={.items[*].status.containerStatuses[*].state.terminated.exitCode}'

# only if it has failed: the last lines
kubectl logs \
    --selector=jobset.sigs.k8s.io/jobset-name=demo \
    --container=train \
    --prefix \
    --ignore-errors \
    --max-log-requests=5 \
    --tail=20

# later, run it yourself: ends the job with a checkpoint, or deletes one that has ended
xpk workload delete --workload=demo --cluster=pods --zone=us-west4-a --project=my-project

# later, run it yourself: gives the slices and the cluster back
xpk cluster delete --cluster=pods --zone=us-west4-a --project=my-project
