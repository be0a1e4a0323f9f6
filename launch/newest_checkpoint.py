"""The newest checkpoint of a run in a bucket, which is not mounted on this machine."""

import re

from switch_jax.errors import UserError
from switch_jax.launch.commands import Command, output
from switch_jax.launch.job import Job


def newest_step(job: Job) -> int | None:
    """The step of the newest checkpoint; None if there is none, or the bucket cannot be read."""
    try:
        names = output(list_checkpoints(job))
    except UserError:  # gcloud also fails if the folder does not exist
        return None
    return max((int(step) for step in re.findall(r"/(\d+)/$", names, re.M)), default=None)


def list_checkpoints(job: Job) -> Command:
    """Lists the run's checkpoints."""
    argv = ("gcloud", "storage", "ls", f"{job.model_dir.rstrip('/')}/checkpoints/")
    return Command(
        argv, "before each restart: lists the checkpoints, to see whether there is a new one"
    )
