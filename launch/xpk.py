"""A job on GKE through xpk, for clusters that `xpk cluster create` has made.

xpk writes the JobSet itself. There every restart counts, after a preemption too. Its containers
are privileged, and mount their buckets themselves, as on TPU VMs. What --command says becomes a
line of a script in the manifest as it is (src/xpk/core/docker_container.py), so it has to be one
line, quoted for bash, and without what Kubernetes expands.
"""

from switch_jax.launch import gke, tpu_hosts
from switch_jax.launch.commands import Command, Step, run_command, shell_line
from switch_jax.launch.environment import environment
from switch_jax.launch.job import Job

# xpk itself adds 42 and 127 to 255.
_RESTARTING = "1,4-126"


def steps(job: Job) -> list[Step]:
    """All that `run` does, in this order."""
    return [_credentials(job), _create(job), *gke.looks(job)]


def afterwards(job: Job) -> list[Command]:
    """How to end the job, and to stop paying."""
    workload = ("xpk", "workload", "delete", f"--workload={job.name}", *_place(job))
    why = "not done here: gives the slices back, and the cluster"
    return [
        Command(workload, gke.ENDS),
        Command(("xpk", "cluster", "delete", *_place(job)), why),
    ]


def run(job: Job) -> int:
    """Hands the job to xpk where it is not there yet, and follows it: see `gke.run`."""
    run_command(_credentials(job))
    if not gke.found(job):
        run_command(_create(job))
    return gke.follow(job)


def _credentials(job: Job) -> Command:
    argv = ("xpk", "workload", "list", *_place(job), f"--filter-by-job={job.name}")
    return Command(argv, "kubectl comes to know the cluster")


def _create(job: Job) -> Command:
    variables = environment(job.hardware).items()
    argv = (
        *("xpk", "workload", "create", f"--workload={job.name}", *_place(job)),
        f"--tpu-type={job.hardware.accelerator_type}",
        f"--num-slices={job.hardware.count}",
        "--no-use-parallel-containers",
        f"--docker-name={gke.CONTAINER}",
        f"--docker-image={job.image}",
        f"--max-restarts={job.max_restarts}",
        f"--restart-on-exit-codes={_RESTARTING}",
        f"--termination-grace-period-seconds={tpu_hosts.SAVE_SECONDS}",
        *(f"--env={name}={gke.literal(value)}" for name, value in variables),
        f"--command={gke.literal(shell_line(tpu_hosts.with_buckets(job)))}",
    )
    return Command(argv, "only where kubectl finds no JobSet: xpk makes and applies it")


def _place(job: Job) -> tuple[str, ...]:
    return (f"--cluster={job.cluster}", f"--zone={job.zone}", f"--project={job.project}")
