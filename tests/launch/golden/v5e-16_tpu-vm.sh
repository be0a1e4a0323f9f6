# base16: 16 chips, 4 hosts (v5e-16)

# once, run it yourself: build the image of switch_jax, from a checkout
docker build \
    --platform=linux/amd64 \
    --file=launch/Dockerfile \
    --tag=us-docker.pkg.dev/my-project/images/switch_jax:1 \
    .

# once, run it yourself: push the image to where the hosts pull it from
docker push us-docker.pkg.dev/my-project/images/switch_jax:1

# the script that every host runs
mkdir -p launched
cat > launched/base16.sh <<'END'
#!/bin/bash
# Starts the job on one host, or follows it if it already runs: bash base16.sh SLICE
set -euo pipefail
{ # bash reads up to the last brace before it runs this: the file may be replaced meanwhile.
worker=$(curl --silent --fail --header 'Metadata-Flavor: Google' \
  http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number \
  || hostname)
trap 'echo "[$1 $worker] exit code $?"' EXIT
label='{{.Config.Labels.switch_jax_job}}'
job=$(sudo docker container inspect --format "$label" base16 2> /dev/null || true)
lines=20
if [ -z "$job" ]; then
  lines=all
  sudo gcloud auth configure-docker us-docker.pkg.dev --quiet
  sudo docker run \
    --label=switch_jax_job=a1e1482b \
    --detach \
    --init \
    --name=base16 \
    --privileged \
    --net=host \
    --log-opt=max-size=100m \
    --log-opt=max-file=3 \
    --stop-timeout=600 \
    --volume=/var/cache/switch_jax:/var/cache/switch_jax \
    --env=JAX_PLATFORMS=tpu,cpu \
    us-docker.pkg.dev/my-project/images/switch_jax:1 \
    switch_jax \
    train \
    --multihost \
    --gin_file=models/switch_base_16.gin \
    --gin_file=runs/pretrain.gin \
    --gin.MODEL_DIR=gs://my-bucket/runs/base16 \
    --gin.MIXTURE_OR_TASK_NAME=c4_span_corruption \
    --gin.TRAIN_STEPS=100000 \
    --gin.BATCH_SIZE=256 \
    --gin.MESH_EXPERT=16 \
    --tfds_data_dir=gs://my-bucket/tfds > /dev/null
elif [ "$job" != a1e1482b ]; then
  echo "[$1 $worker] another job runs as base16"
  exit 99
fi
sudo docker logs --follow --tail "$lines" base16 2>&1 | sed --unbuffered "s/^/[$1 $worker] /"
code=$(sudo docker wait base16)
exit "$code"
}
END

# repeated every 30 s until the slice is READY
gcloud compute tpus tpu-vm describe base16 \
    --zone=us-west4-a \
    --project=my-project \
    --format='value(state)'

# only after a preemption: deletes what is left of the slice
gcloud compute tpus tpu-vm delete base16 --zone=us-west4-a --project=my-project --quiet

# only if there is no slice: creates it
gcloud compute tpus tpu-vm create base16 \
    --zone=us-west4-a \
    --project=my-project \
    --accelerator-type=v5litepod-16 \
    --version=v2-alpha-tpuv5-lite

# copies the script to all hosts
gcloud alpha compute tpus tpu-vm scp launched/base16.sh base16: \
    --worker=all \
    --zone=us-west4-a \
    --project=my-project

# removes the containers of earlier attempts, but no other program's, nor one that runs
gcloud alpha compute tpus tpu-vm ssh base16 \
    --worker=all \
    --batch-size=all \
    --command='sudo docker container prune --force --filter=label=switch_jax_job' \
    --zone=us-west4-a \
    --project=my-project

# starts the job on all hosts, or follows it if it already runs
gcloud alpha compute tpus tpu-vm ssh base16 \
    --worker=all \
    --batch-size=all \
    --command='bash base16.sh base16' \
    --zone=us-west4-a \
    --project=my-project

# only if a host has failed and others still run after 180 s
gcloud alpha compute tpus tpu-vm ssh base16 \
    --worker=all \
    --batch-size=all \
    --command='sudo docker kill base16' \
    --zone=us-west4-a \
    --project=my-project

# later, run it yourself: ends the job with a checkpoint; press Ctrl-C here first
gcloud alpha compute tpus tpu-vm ssh base16 \
    --worker=all \
    --batch-size=all \
    --command='sudo docker stop base16' \
    --zone=us-west4-a \
    --project=my-project

# later, run it yourself: gives the slice back when you no longer need it
gcloud compute tpus tpu-vm delete base16 --zone=us-west4-a --project=my-project --quiet
