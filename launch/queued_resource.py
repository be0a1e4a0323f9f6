"""Slices of TPU VMs that are asked for, waited for, and asked for again after a preemption."""

from switch_jax.launch import checkpoints, hosts, slices
from switch_jax.launch.job import Job
from switch_jax.launch.steps import Command, Step


def steps(job: Job) -> list[Step]:
    """All that `run` may do, in this order."""
    return [
        hosts.script(job),
        _describe(job),
        _delete(job, "only after a preemption (SUSPENDED) or FAILED: the request that is over"),
        _create(job),
        *hosts.steps(job, _nodes(job)),
        checkpoints.listing(job),
    ]


def afterwards(job: Job) -> list[Command]:
    """How to end the job, and to stop paying."""
    why = "not done here: gives the slices back, when you need them no more"
    return [*(hosts.end(job, node) for node in _nodes(job)), _delete(job, why)]


def run(job: Job) -> int:
    """Asks for the slices, waits for them, and runs the job: see `slices.run`."""
    request = slices.Request(
        nodes=_nodes(job),
        describe=_describe(job),
        create=_create(job),
        delete=_delete(job, ""),
        ready="ACTIVE",
        gone=("SUSPENDED",),
    )
    return slices.run(job, request)


def _nodes(job: Job) -> list[str]:
    """Names of the TPU VMs, one a slice."""
    count = job.hardware.count
    return [job.name] if count == 1 else [f"{job.name}-{i}" for i in range(count)]


def _describe(job: Job) -> Command:
    argv = (*_gcloud(job, "describe"), "--format=value(state.state)")
    return Command(
        argv, f"asked every {slices.POLL:.0f} s until it is ACTIVE: the slices are there"
    )


def _delete(job: Job, why: str) -> Command:
    return Command((*_gcloud(job, "delete"), "--force", "--quiet"), why)


def _create(job: Job) -> Command:
    count = job.hardware.count
    several = (f"--node-count={count}", f"--node-prefix={job.name}")
    argv = (
        *_gcloud(job, "create"),
        *(several if count > 1 else (f"--node-id={job.name}",)),
        f"--accelerator-type={job.hardware.accelerator_type}",
        f"--runtime-version={job.hardware.generation.cloud.runtime}",
        *slices.capacity(job),
    )
    return Command(argv, "only where there is no request: asks for the slices")


def _gcloud(job: Job, verb: str) -> tuple[str, ...]:
    place = (f"--zone={job.zone}", f"--project={job.project}")
    return ("gcloud", "compute", "tpus", "queued-resources", verb, job.name, *place)
