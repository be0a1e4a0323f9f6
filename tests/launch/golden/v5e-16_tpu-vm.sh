# base: 16 chips, 4 hosts (v5e-16)

# once, not done here: the project may use the service
gcloud services enable tpu.googleapis.com --project=my-project

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

# what every host runs
mkdir -p launched
cat > launched/base.sh <<'END'
#!/bin/bash
# Starts the job on one host, or follows it where it runs: bash base.sh SLICE
set -euo pipefail
{ # Read to its end before it runs: the file is sent again while an earlier bash follows.
worker=$(curl --silent --fail --header 'Metadata-Flavor: Google' \
  http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number \
  || hostname)
trap 'echo "[$1 $worker] exit code $?"' EXIT
label='{{.Config.Labels.job}}'
job=$(sudo docker container inspect --format "$label" base 2> /dev/null || true)
lines=20
if [ -z "$job" ]; then
  lines=all
  sudo gcloud auth configure-docker us-docker.pkg.dev --quiet
  sudo docker run \
    --label=job=7f20ad7e \
    --detach \
    --init \
    --name=base \
    --privileged \
    --net=host \
    --log-opt=max-size=100m \
    --log-opt=max-file=3 \
    --stop-timeout=600 \
    --volume=/var/cache/switch_jax:/var/cache/switch_jax \
    --env=JAX_PLATFORMS=tpu,cpu \
    us-docker.pkg.dev/my-project/images/switch_jax:1 \
    with_gcs \
    my-bucket \
    -- \
    switch_jax \
    train \
    --multihost \
    --gin_file=models/switch_base.gin \
    --gin_file=runs/pretrain.gin \
    --gin.MODEL_DIR=gs://my-bucket/runs/base \
    --gin.MIXTURE_OR_TASK_NAME=c4_span_corruption \
    --gin.TRAIN_STEPS=100000 \
    --gin.MESH_EXPERT=16 \
    --tfds_data_dir=gs://my-bucket/tfds > /dev/null
elif [ "$job" != 7f20ad7e ]; then
  echo "[$1 $worker] another job runs as base: end it first, or launch under another name"
  exit 2
fi
sudo docker logs --follow --tail "$lines" base 2>&1 | sed --unbuffered "s/^/[$1 $worker] /"
code=$(sudo docker wait base)
exit "$code"
}
END

# is the slice there? asked every 30 s until it is READY
gcloud compute tpus tpu-vm describe base \
    --zone=us-west4-a \
    --project=my-project \
    --format='value(state)'

# only after a preemption: what is left of the slice that is no more
gcloud compute tpus tpu-vm delete base --zone=us-west4-a --project=my-project --quiet

# only where there is none: makes the slice
gcloud compute tpus tpu-vm create base \
    --zone=us-west4-a \
    --project=my-project \
    --accelerator-type=v5litepod-16 \
    --version=v2-alpha-tpuv5-lite

# the script, to all hosts
gcloud compute tpus tpu-vm scp launched/base.sh base: \
    --worker=all \
    --zone=us-west4-a \
    --project=my-project

# what an earlier attempt left is gone; a container that runs stays
gcloud compute tpus tpu-vm ssh base \
    --worker=all \
    --batch-size=all \
    --command='sudo docker container prune --force' \
    --zone=us-west4-a \
    --project=my-project

# starts the job on all hosts, or finds it there; prints what they print
gcloud compute tpus tpu-vm ssh base \
    --worker=all \
    --batch-size=all \
    --command='bash base.sh base' \
    --zone=us-west4-a \
    --project=my-project

# only where a host has failed and others still wait after 180 s
gcloud compute tpus tpu-vm ssh base \
    --worker=all \
    --batch-size=all \
    --command='sudo docker kill base' \
    --zone=us-west4-a \
    --project=my-project

# before each restart: are there new checkpoints?
gcloud storage ls gs://my-bucket/runs/base/checkpoints/

# not done here: ends the job with a checkpoint, after Ctrl-C here
gcloud compute tpus tpu-vm ssh base \
    --worker=all \
    --batch-size=all \
    --command='sudo docker stop base' \
    --zone=us-west4-a \
    --project=my-project

# not done here: gives the slice back, when you need it no more
gcloud compute tpus tpu-vm delete base --zone=us-west4-a --project=my-project --quiet
