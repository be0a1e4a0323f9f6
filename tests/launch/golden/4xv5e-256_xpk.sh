# base: 1,024 chips, 256 hosts (4xv5e-256)

# once, run it yourself: build the image of switch_jax, from a checkout
docker build \
    --platform=linux/amd64 \
    --file=launch/Dockerfile \
    --tag=us-docker.pkg.dev/my-project/images/switch_jax:1 \
    .

# once, run it yourself: push the image to where the hosts pull it from
docker push us-docker.pkg.dev/my-project/images/switch_jax:1

# once, run it yourself: create the cluster and its slices, which cost money from now on
xpk cluster create \
    --cluster=pods \
    --zone=us-west4-a \
    --project=my-project \
    --tpu-type=v5litepod-256 \
    --num-slices=4 \
    --spot

# gives kubectl access to the cluster
xpk workload list --cluster=pods --zone=us-west4-a --project=my-project --filter-by-job=base

# only if kubectl finds no JobSet: xpk makes and applies it
xpk workload create \
    --workload=base \
    --cluster=pods \
    --zone=us-west4-a \
    --project=my-project \
    --tpu-type=v5litepod-256 \
    --num-slices=4 \
    --no-use-parallel-containers \
    --docker-name=train \
    --docker-image=us-docker.pkg.dev/my-project/images/switch_jax:1 \
    --max-restarts=1000 \
    --restart-on-exit-codes=1,4-126 \
    --termination-grace-period-seconds=600 \
    --env=JAX_COMPILATION_CACHE_DIR=gs://my-bucket/runs/base/compiled \
    --env=JAX_PLATFORMS=tpu,cpu \
    --env='LIBTPU_INIT_ARGS=--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true' \
    --command='python -m switch_jax.launch.restart_limit gs://my-bucket/runs/base 100 -- switch_jax train --multihost --gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin --gin.MODEL_DIR=gs://my-bucket/runs/base --gin.MIXTURE_OR_TASK_NAME=c4_span_corruption --gin.TRAIN_STEPS=100000 --gin.MESH_EXPERT=128 --gin.GROUP_SIZE=1024 --gin.DECODER_GROUP_SIZE=256 --gin.DATA_STREAMS=256 --tfds_data_dir=gs://my-bucket/tfds'

# repeated every 10 s until all pods run
kubectl get pods \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --field-selector=status.phase=Running \
    --output=name

# prints the output of all hosts; with --since-time=LAST_LINE after a lost connection
kubectl logs \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --container=train \
    --prefix \
    --ignore-errors \
    --max-log-requests=256 \
    --follow \
    --tail=-1

# prints JobSet if it exists, and Completed or Failed if it has ended
kubectl get jobset base --ignore-not-found --output='jsonpath={.kind} {.status.terminalState}'

# only if it has failed: the exit codes
kubectl get pods \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --output='jsonpath={.items[*].status.containerStatuses[*].state.terminated.exitCode}'

# only if it has failed: the last lines
kubectl logs \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --container=train \
    --prefix \
    --ignore-errors \
    --max-log-requests=256 \
    --tail=20

# later, run it yourself: ends the job with a checkpoint, or deletes one that has ended
xpk workload delete --workload=base --cluster=pods --zone=us-west4-a --project=my-project

# later, run it yourself: gives the slices and the cluster back
xpk cluster delete --cluster=pods --zone=us-west4-a --project=my-project
