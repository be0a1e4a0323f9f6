# demo: 16 chips, 4 hosts (v5e-16)

# once, run it yourself: keep the value of WANDB_API_KEY, a variable of this shell (export WANDB_API_KEY=...)
bash \
    -c \
    ': "${WANDB_API_KEY:?}"; printf %s "$WANDB_API_KEY" | gcloud secrets create WANDB_API_KEY --data-file=- --project=my-project'

# the script that every host runs
mkdir -p launched
cat > launched/demo.sh <<'END'
#!/bin/bash
# Starts the job on one host, or follows it if it already runs: bash demo.sh SLICE
set -euo pipefail
{ # bash reads up to the last brace before it runs this: the file may be replaced meanwhile.
worker=$(curl --silent --fail --header 'Metadata-Flavor: Google' \
  http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number \
  || hostname)
trap 'echo "[$1 $worker] exit code $?"' EXIT
label='{{.Config.Labels.switch_jax_job}}'
job=$(sudo docker container inspect --format "$label" demo 2> /dev/null || true)
lines=20
if [ -z "$job" ]; then
  lines=all
  sudo docker run \
    --label=switch_jax_job=a2ec9e35 \
    --detach \
    --init \
    --name=demo \
    --privileged \
    --net=host \
    --log-opt=max-size=100m \
    --log-opt=max-file=3 \
    --stop-timeout=600 \
    --volume=/var/cache/switch_jax:/var/cache/switch_jax \
    --env=JAX_PLATFORMS=tpu,cpu \
    --env='NOTE=a=b, $c' \
    ghcr.io/me/switch_jax@sha256:0000000000000000000000000000000000000000000000000000000000000000 \
    with_secrets \
    my-project \
    WANDB_API_KEY \
    -- \
    switch_jax \
    train \
    --multihost \
    --gin_file=runs/demo_switch.gin \
    --gin.MODEL_DIR=gs://my-bucket/runs/demo \
    --gin.MESH_DATA=2 \
    --gin.MESH_EXPERT=8 \
    --gin.GROUP_SIZE=64 \
    --gin.DATA_STREAMS=4 > /dev/null
elif [ "$job" != a2ec9e35 ]; then
  echo "[$1 $worker] another job runs as demo"
  exit 99
fi
sudo docker logs --follow --tail "$lines" demo 2>&1 | sed --unbuffered "s/^/[$1 $worker] /"
code=$(sudo docker wait demo)
exit "$code"
}
END

# repeated every 30 s until the slice is READY
gcloud compute tpus tpu-vm describe demo \
    --zone=us-west4-a \
    --project=my-project \
    --format='value(state)'

# only after a preemption: deletes what is left of the slice
gcloud compute tpus tpu-vm delete demo --zone=us-west4-a --project=my-project --quiet

# only if there is no slice: creates it
gcloud compute tpus tpu-vm create demo \
    --zone=us-west4-a \
    --project=my-project \
    --accelerator-type=v5litepod-16 \
    --version=v2-alpha-tpuv5-lite \
    --reserved \
    --internal-ips \
    --network=projects/host-project/global/networks/net \
    --subnetwork=pods

# copies the script to all hosts
gcloud alpha compute tpus tpu-vm scp launched/demo.sh demo: \
    --worker=all \
    --tunnel-through-iap \
    --zone=us-west4-a \
    --project=my-project

# removes the containers of earlier attempts, but no other program's, nor one that runs
gcloud alpha compute tpus tpu-vm ssh demo \
    --worker=all \
    --batch-size=all \
    --command='sudo docker container prune --force --filter=label=switch_jax_job' \
    --tunnel-through-iap \
    --zone=us-west4-a \
    --project=my-project

# starts the job on all hosts, or follows it if it already runs
gcloud alpha compute tpus tpu-vm ssh demo \
    --worker=all \
    --batch-size=all \
    --command='bash demo.sh demo' \
    --tunnel-through-iap \
    --zone=us-west4-a \
    --project=my-project

# only if a host has failed and others still run after 180 s
gcloud alpha compute tpus tpu-vm ssh demo \
    --worker=all \
    --batch-size=all \
    --command='sudo docker kill demo' \
    --tunnel-through-iap \
    --zone=us-west4-a \
    --project=my-project

# after exit code 0: gives the chips back
gcloud compute tpus tpu-vm delete demo --zone=us-west4-a --project=my-project --quiet

# later, run it yourself: ends the job with a checkpoint; press Ctrl-C here first
gcloud alpha compute tpus tpu-vm ssh demo \
    --worker=all \
    --batch-size=all \
    --command='sudo docker stop demo' \
    --tunnel-through-iap \
    --zone=us-west4-a \
    --project=my-project

# later, run it yourself: gives the slice back when you no longer need it
gcloud compute tpus tpu-vm delete demo --zone=us-west4-a --project=my-project --quiet
