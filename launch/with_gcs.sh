#!/bin/bash
# Mounts buckets at /gcs/BUCKET, where switch_jax looks for gs://BUCKET, and runs a command:
#   with_gcs my-bucket other-bucket -- switch_jax train ...
# For privileged containers. On GKE the cluster's own driver mounts the buckets. The limit matters only
# for buckets without a hierarchical namespace, which cannot rename folders without it:
# docs/many_hosts.md.
set -euo pipefail
while [ "$1" != -- ]; do
  mkdir -p "/gcs/$1"
  gcsfuse --implicit-dirs --rename-dir-limit=200000 "$1" "/gcs/$1"
  shift
done
shift
exec "$@"
