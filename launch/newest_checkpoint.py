"""The last checkpoint of a run, as the launching machine sees it: it has no bucket mounted."""

import re

from switch_jax.errors import UserError
from switch_jax.launch.commands import Command, output
from switch_jax.launch.job import Job


def newest_step(job: Job) -> int | None:
    """The last checkpoint's step; None where there is none, or the bucket does not answer."""
    try:
        names = output(list_checkpoints(job))
    except UserError:  # gcloud fails where the folder is not there, too
        return None
    return max((int(step) for step in re.findall(r"/(\d+)/$", names, re.M)), default=None)


def list_checkpoints(job: Job) -> Command:
    """Lists the run's checkpoints."""
    argv = ("gcloud", "storage", "ls", f"{job.model_dir.rstrip('/')}/checkpoints/")
    return Command(argv, "before each restart: are there new checkpoints?")
