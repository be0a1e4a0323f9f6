#!/bin/bash
# Mounts buckets at /gcs/BUCKET, where switch_jax looks for gs://BUCKET, and runs a command:
#   with_gcs my-bucket other-bucket -- switch_jax train ...
# For privileged containers; on GKE the cluster's own driver mounts.
set -euo pipefail
while [ "$1" != -- ]; do
  mkdir -p "/gcs/$1"
  gcsfuse --implicit-dirs "$1" "/gcs/$1"
  shift
done
shift
exec "$@"
