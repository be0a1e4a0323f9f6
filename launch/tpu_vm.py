"""One slice of TPU VMs, made at once or not at all."""

from switch_jax.launch import checkpoints, hosts, slices
from switch_jax.launch.job import Job
from switch_jax.launch.steps import Command, Step


def steps(job: Job) -> list[Step]:
    """All that `run` may do, in this order."""
    return [
        hosts.script(job),
        _describe(job),
        _delete(job, "only after a preemption: what is left of the slice that is no more"),
        _create(job),
        *hosts.steps(job, [job.name]),
        checkpoints.listing(job),
    ]


def afterwards(job: Job) -> list[Command]:
    """How to end the job, and to stop paying."""
    why = "not done here: gives the slice back, when you need it no more"
    return [hosts.end(job, job.name), _delete(job, why)]


def run(job: Job) -> int:
    """Makes the slice where it is not there, and runs the job: see `slices.run`."""
    request = slices.Request(
        nodes=[job.name],
        describe=_describe(job),
        create=_create(job),
        delete=_delete(job, ""),
        ready="READY",
        gone=("PREEMPTED", "TERMINATED"),
    )
    return slices.run(job, request)


def _describe(job: Job) -> Command:
    argv = (*_gcloud(job, "describe"), "--format=value(state)")
    return Command(argv, f"is the slice there? asked every {slices.POLL:.0f} s until it is READY")


def _delete(job: Job, why: str) -> Command:
    return Command((*_gcloud(job, "delete"), "--quiet"), why)


def _create(job: Job) -> Command:
    argv = (
        *_gcloud(job, "create"),
        f"--accelerator-type={job.hardware.accelerator_type}",
        f"--version={job.hardware.generation.cloud.runtime}",
        *slices.capacity(job),
    )
    return Command(argv, "only where there is none: makes the slice")


def _gcloud(job: Job, verb: str) -> tuple[str, ...]:
    place = (f"--zone={job.zone}", f"--project={job.project}")
    return ("gcloud", "compute", "tpus", "tpu-vm", verb, job.name, *place)
