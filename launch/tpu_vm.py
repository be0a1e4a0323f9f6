"""One slice of TPU VMs, made at once or not at all."""

from switch_jax.launch import slices
from switch_jax.launch.commands import Command, Step
from switch_jax.launch.job import Job
from switch_jax.launch.tpu_hosts import gcloud


def steps(job: Job) -> list[Step]:
    """All that `run` may do, in this order."""
    return slices.steps(job, _request(job))


def afterwards(job: Job) -> list[Command]:
    """How to end the job, and to stop paying."""
    why = "gives the slice back, when you need it no more"
    return slices.afterwards(job, _request(job), why)


def run(job: Job) -> int:
    """Makes the slice where it is not there, and runs the job: see `slices.run`."""
    return slices.run(job, _request(job))


def _request(job: Job) -> slices.Request:
    def command(verb: str, why: str, *flags: str) -> Command:
        return Command((*gcloud(job, "tpu-vm", verb, job.name), *flags), why)

    return slices.Request(
        nodes=[job.name],
        describe=command(
            "describe",
            f"is the slice there? asked every {slices.POLL_SECONDS:.0f} s until it is READY",
            "--format=value(state)",
        ),
        create=command(
            "create",
            "only where there is none: makes the slice",
            f"--accelerator-type={job.hardware.accelerator_type}",
            f"--version={job.hardware.generation.cloud.runtime}",
            *slices.capacity(job),
        ),
        delete=command(
            "delete",
            "only after a preemption: what is left of the slice that is no more",
            "--quiet",
        ),
        ready="READY",
        gone=("PREEMPTED", "TERMINATED"),
    )
