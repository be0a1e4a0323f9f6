"""A JobSet on GKE through xpk, on a cluster that `xpk cluster create` has made.

xpk writes the manifest itself. Every restart counts, also after a preemption. The containers read
their secrets themselves, as on TPU VMs. (A secret in xpk's --env would stand in the manifest.) Pods
are on the network of their node and have its account, with the scope cloud-platform that Secret
Manager asks for (src/xpk/core/nodepool.py). xpk copies --command into a script in the manifest
(src/xpk/core/docker_container.py), so it has to be one line, quoted for bash and escaped for
Kubernetes.
"""

import argparse

from switch_jax.launch import google_cloud, setup_commands, tpu_hosts
from switch_jax.launch.commands import Command, Step, run_command, shell_line
from switch_jax.launch.console import log
from switch_jax.launch.job import Job
from switch_jax.launch.jobset import (
    CONTAINER,
    END_WHY,
    RESERVATION,
    JobSet,
    JobSetTarget,
    escape_variables,
)

# xpk adds 42 and 127 to 255.
_RESTARTING = "1,4-126"
_SPOT_RESTARTS = 100


class Xpk(JobSetTarget):
    """A JobSet that `xpk workload create` makes."""

    name = "xpk"
    # Its pods have the account of their nodes.
    optional_flags = tuple(f for f in JobSetTarget.optional_flags if f != "service_account")

    def max_restarts(self, args: argparse.Namespace) -> int:
        if args.spot and args.max_restarts is None:
            log(f"note: with xpk every preemption is a restart: --max_restarts={_SPOT_RESTARTS}")
            return _SPOT_RESTARTS
        return super().max_restarts(args)

    def check_job(self, job: Job) -> None:
        super().check_job(job)
        google_cloud.check_usual_shape(job.hardware)

    def resources(self, job: Job) -> list[Command]:
        capacity = "--spot" if job.spot else RESERVATION if job.reserved else "--on-demand"
        name_it = "; RESERVATION is the name of yours" if job.reserved else ""
        argv = (
            *("xpk", "cluster", "create", *_cluster(job)),
            f"--tpu-type={job.hardware.accelerator_type}",
            f"--num-slices={job.hardware.count}",
            capacity,
        )
        why = f"create the cluster and its slices, which cost money from now on{name_it}"
        return [setup_commands.once(argv, why), *setup_commands.secret_manager(job)]

    def jobset(self, job: Job) -> JobSet:
        return JobSet(job.name, job.hardware.hosts)  # xpk has made its cluster the current one

    def commands(self, job: Job) -> list[Step]:
        return [_get_credentials(job), _create(job), *self.jobset(job).commands.values()]

    def afterwards(self, job: Job) -> list[Command]:
        workload = ("xpk", "workload", "delete", f"--workload={job.name}", *_cluster(job))
        why = "later, run it yourself: gives the slices and the cluster back"
        return [
            Command(workload, END_WHY),
            Command(("xpk", "cluster", "delete", *_cluster(job)), why),
        ]

    def start_and_follow(self, job: Job) -> int:
        """Has xpk make the JobSet if it does not exist, and follows it.

        Raises:
          UserError: xpk refuses it, or xpk or kubectl is not installed.
        """
        run_command(_get_credentials(job))
        if not self.jobset(job).exists():
            run_command(_create(job))
        return self.jobset(job).follow()


def _cluster(job: Job) -> tuple[str, ...]:
    return (f"--cluster={job.cluster}", f"--zone={job.zone}", f"--project={job.project}")


def _get_credentials(job: Job) -> Command:
    argv = ("xpk", "workload", "list", *_cluster(job), f"--filter-by-job={job.name}")
    return Command(argv, "gives kubectl access to the cluster")


def _create(job: Job) -> Command:
    variables = job.variables.items()
    argv = (
        *("xpk", "workload", "create", f"--workload={job.name}", *_cluster(job)),
        f"--tpu-type={job.hardware.accelerator_type}",
        f"--num-slices={job.hardware.count}",
        "--no-use-parallel-containers",
        f"--docker-name={CONTAINER}",
        f"--docker-image={job.image}",
        f"--max-restarts={job.max_restarts}",
        f"--restart-on-exit-codes={_RESTARTING}",
        f"--termination-grace-period-seconds={tpu_hosts.SAVE_SECONDS}",
        *(f"--env={name}={escape_variables(value)}" for name, value in variables),
        f"--command={escape_variables(shell_line(tpu_hosts.container_command(job)))}",
    )
    return Command(argv, "only if kubectl finds no JobSet: xpk makes and applies it")
