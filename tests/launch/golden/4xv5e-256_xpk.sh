# base: 1024 chips, 256 hosts (4xv5e-256)

# once, not done here: the project may use the service
gcloud services enable container.googleapis.com --project=my-project

# once, not done here: the cluster and its slices, which cost from then on
xpk cluster create \
    --cluster=pods \
    --zone=us-west4-a \
    --project=my-project \
    --tpu-type=v5litepod-256 \
    --num-slices=4 \
    --spot

# once, not done here: the bucket, in the region of the slices; its folders can be renamed at once
gcloud storage buckets create gs://my-bucket \
    --location=us-west4 \
    --project=my-project \
    --uniform-bucket-level-access \
    --enable-hierarchical-namespace

# once, not done here: the project may use the service
gcloud services enable artifactregistry.googleapis.com --project=my-project

# once, not done here: where the image goes
gcloud artifacts repositories create images \
    --repository-format=docker \
    --location=us \
    --project=my-project

# once, not done here: docker here may push to it
gcloud auth configure-docker us-docker.pkg.dev --quiet

# once, not done here: prints what to write for PROJECT_NUMBER below
gcloud projects describe my-project --format='value(projectNumber)'

# once, not done here: whom the job acts as may use the bucket
gcloud storage buckets add-iam-policy-binding gs://my-bucket \
    --member=serviceAccount:PROJECT_NUMBER-compute@developer.gserviceaccount.com \
    --role=roles/storage.objectUser

# once, not done here: the hosts may pull the image
gcloud artifacts repositories add-iam-policy-binding images \
    --location=us \
    --project=my-project \
    --member=serviceAccount:PROJECT_NUMBER-compute@developer.gserviceaccount.com \
    --role=roles/artifactregistry.reader

# once, not done here: the image, from a checkout; docs/launching.md adds files of your own
docker build --file=launch/Dockerfile --tag=us-docker.pkg.dev/my-project/images/switch_jax:1 .

# once, not done here: the image, to where the hosts pull it from
docker push us-docker.pkg.dev/my-project/images/switch_jax:1

# before the start: True, or it is refused
gcloud storage buckets describe gs://my-bucket --raw --format='value(hierarchicalNamespace.enabled)'

# kubectl comes to know the cluster
xpk workload list --cluster=pods --zone=us-west4-a --project=my-project --filter-by-job=base

# only where kubectl finds no JobSet: xpk makes and applies it
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
    --max-restarts=3 \
    --restart-on-exit-codes=1,4-126 \
    --termination-grace-period-seconds=600 \
    --env=JAX_PLATFORMS=tpu,cpu \
    --env='LIBTPU_INIT_ARGS=--xla_tpu_enable_data_parallel_all_reduce_opt=true --xla_tpu_data_parallel_opt_different_sized_ops=true' \
    --command='with_gcs my-bucket -- switch_jax train --multihost --gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin --gin.MODEL_DIR=gs://my-bucket/runs/base --gin.MIXTURE_OR_TASK_NAME=c4_span_corruption --gin.TRAIN_STEPS=100000 --gin.MESH_EXPERT=128 --gin.GROUP_SIZE=1024 --gin.DECODER_GROUP_SIZE=256 --tfds_data_dir=gs://my-bucket/tfds'

# asked every 10 s until all pods run
kubectl get pods \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --field-selector=status.phase=Running \
    --output=name

# what all hosts print; --since-time=LAST_LINE where it broke off
kubectl logs \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --container=train \
    --prefix \
    --ignore-errors \
    --max-log-requests=256 \
    --follow \
    --tail=-1

# JobSet: it is there; and Completed or Failed: it is over
kubectl get jobset base --ignore-not-found --output='jsonpath={.kind} {.status.terminalState}'

# only where it failed: the exit codes
kubectl get pods \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --output='jsonpath={.items[*].status.containerStatuses[*].state.terminated.exitCode}'

# only where it failed: the last lines
kubectl logs \
    --selector=jobset.sigs.k8s.io/jobset-name=base \
    --container=train \
    --prefix \
    --ignore-errors \
    --max-log-requests=256 \
    --tail=20

# not done here: ends the job with a checkpoint, or clears away one that is over
xpk workload delete --workload=base --cluster=pods --zone=us-west4-a --project=my-project

# not done here: gives the slices back, and the cluster
xpk cluster delete --cluster=pods --zone=us-west4-a --project=my-project
