"""A JobSet on GKE through xpk, on a cluster that `xpk cluster create` has made.

xpk writes the manifest, and makes the cluster the current one of kubectl. The containers read their
secrets themselves: one in xpk's --env would stand in the manifest. Pods have the network and
account of their node, with the scope cloud-platform (src/xpk/core/nodepool.py). --command becomes a
script in the manifest (src/xpk/core/docker_container.py), so it is one line, quoted for bash and
escaped for Kubernetes.
"""

import dataclasses

from switch_jax.launch import google_cloud, setup_commands, tpu_hosts
from switch_jax.launch.commands import Command, Step, output, run_command, shell_line
from switch_jax.launch.jobset import CONTAINER, END_WHY, RESERVATION, JobSetTarget, escape_variables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Xpk(JobSetTarget):
    """A JobSet that `xpk workload create` makes. Its pods have the account of their nodes."""

    on = "xpk"

    def __post_init__(self) -> None:
        super().__post_init__()
        google_cloud.check_usual_shape(self.hardware)

    def create_nodes(self) -> list[Command]:
        capacity = "--spot" if self.spot else RESERVATION if self.reserved else "--on-demand"
        name_it = "; RESERVATION is the name of yours" if self.reserved else ""
        argv = (
            *("xpk", "cluster", "create", *_cluster(self)),
            f"--tpu-type={self.hardware.accelerator_type}",
            f"--num-slices={self.hardware.count}",
            capacity,
        )
        why = f"create the cluster and its slices, which cost money from now on{name_it}"
        return [setup_commands.one_time(argv, why)]

    def commands(self) -> list[Step]:
        return [_get_credentials(self), _create(self), *self.queries.values()]

    def cleanup_commands(self) -> list[Command]:
        workload = ("xpk", "workload", "delete", f"--workload={self.job_name}", *_cluster(self))
        why = "later, run it yourself: gives the slices and the cluster back"
        return [
            Command(workload, END_WHY),
            Command(("xpk", "cluster", "delete", *_cluster(self)), why),
        ]

    def start_and_follow(self) -> int:
        """Has xpk make the JobSet if the cluster has none, running or not, and follows it."""
        run_command(_get_credentials(self))
        if not output(self.queries["state"]):
            run_command(_create(self))
        return self.follow()


def _cluster(job: Xpk) -> tuple[str, ...]:
    return (f"--cluster={job.cluster}", f"--zone={job.zone}", f"--project={job.project}")


def _get_credentials(job: Xpk) -> Command:
    argv = ("xpk", "workload", "list", *_cluster(job), f"--filter-by-job={job.job_name}")
    return Command(argv, "gives kubectl access to the cluster")


def _create(job: Xpk) -> Command:
    variables = job.variables.items()
    argv = (
        *("xpk", "workload", "create", f"--workload={job.job_name}", *_cluster(job)),
        f"--tpu-type={job.hardware.accelerator_type}",
        f"--num-slices={job.hardware.count}",
        "--no-use-parallel-containers",
        f"--docker-name={CONTAINER}",
        f"--docker-image={job.image}",
        f"--max-restarts={job.restarts_of_cluster}",
        "--restart-on-exit-codes=1,4-126",  # xpk adds 42 and 127 to 255
        f"--termination-grace-period-seconds={tpu_hosts.SAVE_SECONDS}",
        *(f"--env={name}={escape_variables(value)}" for name, value in variables),
        f"--command={escape_variables(shell_line(tpu_hosts.container_command(job)))}",
    )
    return Command(argv, "only if kubectl finds no JobSet: xpk makes and applies it")
