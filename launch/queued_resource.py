"""Slices of TPU VMs that are asked for, waited for, and asked for again after a preemption."""

from switch_jax.launch import slices
from switch_jax.launch.commands import Command, Step
from switch_jax.launch.job import Job
from switch_jax.launch.tpu_hosts import gcloud


def steps(job: Job) -> list[Step]:
    """All that `run` may do, in this order."""
    return slices.steps(job, _request(job))


def afterwards(job: Job) -> list[Command]:
    """How to end the job, and to stop paying."""
    why = "gives the slices back, when you need them no more"
    return slices.afterwards(job, _request(job), why)


def run(job: Job) -> int:
    """Asks for the slices, waits for them, and runs the job: see `slices.run`."""
    return slices.run(job, _request(job))


def _request(job: Job) -> slices.Request:
    def command(verb: str, why: str, *flags: str) -> Command:
        return Command((*gcloud(job, "queued-resources", verb, job.name), *flags), why)

    count, one = job.hardware.count, job.hardware.count == 1
    several = (f"--node-count={count}", f"--node-prefix={job.name}")
    return slices.Request(
        nodes=[job.name] if one else [f"{job.name}-{i}" for i in range(count)],
        describe=command(
            "describe",
            f"asked every {slices.POLL_SECONDS:.0f} s until it is ACTIVE: the slices are there",
            "--format=value(state.state)",
        ),
        create=command(
            "create",
            "only where there is no request: asks for the slices",
            *((f"--node-id={job.name}",) if one else several),
            f"--accelerator-type={job.hardware.accelerator_type}",
            f"--runtime-version={job.hardware.generation.cloud.runtime}",
            *slices.capacity(job),
        ),
        delete=command(
            "delete",
            "only after a preemption (SUSPENDED) or FAILED: the request that is over",
            "--force",
            "--quiet",
        ),
        ready="ACTIVE",
        gone=("SUSPENDED",),
    )
