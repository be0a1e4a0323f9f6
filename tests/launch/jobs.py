"""Jobs to launch."""

from typing import Any

from switch_jax.launch.job import Job


def make_job(topology: str, **fields: Any) -> Job:
    """A job named base, whose folder is gs://my-bucket/runs/base."""
    given: dict[str, Any] = {
        "name": "base",
        "train": ("--gin_file=x.gin",),
        "model_dir": "gs://my-bucket/runs/base",
        "topology": topology,
        "project": "my-project",
        "zone": "us-west4-a",
        "image": "ghcr.io/me/switch_jax:1",
    }
    return Job(**(given | fields))
