# base: 128 chips, 32 hosts (v5p-256)

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
cat > launched/base.sh <<'END'
#!/bin/bash
# Starts the job on one host, or follows it if it already runs: bash base.sh SLICE
set -euo pipefail
{ # bash reads up to the last brace before it runs this: the file may be replaced meanwhile.
worker=$(curl --silent --fail --header 'Metadata-Flavor: Google' \
  http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number \
  || hostname)
trap 'echo "[$1 $worker] exit code $?"' EXIT
label='{{.Config.Labels.switch_jax_job}}'
job=$(sudo docker container inspect --format "$label" base 2> /dev/null || true)
lines=20
if [ -z "$job" ]; then
  lines=all
  sudo gcloud auth configure-docker us-docker.pkg.dev --quiet
  sudo docker run \
    --label=switch_jax_job=e1387479 \
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
    switch_jax \
    train \
    --multihost \
    --gin_file=models/switch_base.gin \
    --gin_file=runs/pretrain.gin \
    --gin.MODEL_DIR=gs://my-bucket/runs/base \
    --gin.MIXTURE_OR_TASK_NAME=c4_span_corruption \
    --gin.TRAIN_STEPS=100000 \
    --gin.MESH_EXPERT=128 \
    --gin.DATA_STREAMS=128 \
    --tfds_data_dir=gs://my-bucket/tfds > /dev/null
elif [ "$job" != e1387479 ]; then
  echo "[$1 $worker] another job runs as base"
  exit 99
fi
sudo docker logs --follow --tail "$lines" base 2>&1 | sed --unbuffered "s/^/[$1 $worker] /"
code=$(sudo docker wait base)
exit "$code"
}
END

# repeated every 30 s until the request is ACTIVE
gcloud compute tpus queued-resources describe base \
    --zone=us-east5-a \
    --project=my-project \
    --format='value(state.state)'

# only if the request is SUSPENDED (after a preemption) or FAILED: deletes it
gcloud compute tpus queued-resources delete base \
    --zone=us-east5-a \
    --project=my-project \
    --force \
    --quiet

# only if there is no request: requests the slices
gcloud compute tpus queued-resources create base \
    --zone=us-east5-a \
    --project=my-project \
    --node-id=base \
    --accelerator-type=v5p-256 \
    --runtime-version=v2-alpha-tpuv5 \
    --spot \
    --service-account=trainer@my-project.iam.gserviceaccount.com

# copies the script to all hosts
gcloud alpha compute tpus tpu-vm scp launched/base.sh base: \
    --worker=all \
    --zone=us-east5-a \
    --project=my-project

# removes the containers of earlier attempts, but no other program's, nor one that runs
gcloud alpha compute tpus tpu-vm ssh base \
    --worker=all \
    --batch-size=all \
    --command='sudo docker container prune --force --filter=label=switch_jax_job' \
    --zone=us-east5-a \
    --project=my-project

# starts the job on all hosts, or follows it if it already runs
gcloud alpha compute tpus tpu-vm ssh base \
    --worker=all \
    --batch-size=all \
    --command='bash base.sh base' \
    --zone=us-east5-a \
    --project=my-project

# only if a host has failed and others still run after 180 s
gcloud alpha compute tpus tpu-vm ssh base \
    --worker=all \
    --batch-size=all \
    --command='sudo docker kill base' \
    --zone=us-east5-a \
    --project=my-project

# later, run it yourself: ends the job with a checkpoint; press Ctrl-C here first
gcloud alpha compute tpus tpu-vm ssh base \
    --worker=all \
    --batch-size=all \
    --command='sudo docker stop base' \
    --zone=us-east5-a \
    --project=my-project

# later, run it yourself: gives the slices back when you no longer need them
gcloud compute tpus queued-resources delete base \
    --zone=us-east5-a \
    --project=my-project \
    --force \
    --quiet
