from typing import Any

from switch_jax.launch.targets.queued_resource import QueuedResource

IMAGE = "us-docker.pkg.dev/my-project/images/switch_jax:1"
ON_VM = [
    "launch", "--on=tpu-vm", "--topology=v5e-16", "--job_name=demo", "--project=my-project",
    "--zone=us-west4-a", f"--image={IMAGE}",
]  # fmt: skip
DEMO = [
    "--gin_file=runs/demo_switch.gin", "--gin.MODEL_DIR=gs://my-bucket/runs/demo",
    "--gin.MESH_DATA=2", "--gin.MESH_EXPERT=8", "--gin.GROUP_SIZE=64", "--gin.DATA_STREAMS=4",
]  # fmt: skip

# How gin files of somebody's own begin.
PRETRAIN = (
    "include 'models/switch_base.gin'\ninclude 'runs/pretrain.gin'\n"
    "MODEL_DIR = 'gs://my-bucket/run'\n"
)

# 2^24 rows of 256 float32 numbers are 16 GiB; the other parameters are a few MiB.
LARGE_TABLE = ["--gin.NUM_EMBEDDINGS=16777216", "--gin.EMBED_DIM=256"]


def make_job(topology: str, target: Any = QueuedResource, **fields: Any) -> Any:
    """A job named base, whose folder is gs://my-bucket/runs/base."""
    given: dict[str, Any] = {
        "job_name": "base",
        "arguments": ("--gin_file=x.gin",),
        "model_dir": "gs://my-bucket/runs/base",
        "topology": topology,
        "project": "my-project",
        "zone": "us-west4-a",
        "image": "ghcr.io/me/switch_jax:1",
    }
    if "cluster" in target.flags():
        given["cluster"] = "pods"
    return target(**(given | fields))
