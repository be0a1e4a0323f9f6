"""The newest checkpoint of a run in a bucket, as gcloud lists it."""

from switch_jax.errors import UserError
from switch_jax.launch.commands import Command, output
from switch_jax.launch.job import Job
from switch_jax.run_folder import checkpoint_steps, checkpoints_url


def newest_step(job: Job) -> int | None:
    """The step of the newest checkpoint; None if there is none, or the bucket cannot be read."""
    try:
        names = output(list_checkpoints(job))
    except UserError:  # gcloud also fails if the folder does not exist
        return None
    folders = (line.split("/")[-2] for line in names.splitlines() if line.endswith("/"))
    return max(checkpoint_steps(folders), default=None)


def list_checkpoints(job: Job) -> Command:
    """Lists the run's checkpoints."""
    argv = ("gcloud", "storage", "ls", checkpoints_url(job.model_dir))
    return Command(
        argv, "before each restart: lists the checkpoints, to see whether there is a new one"
    )
