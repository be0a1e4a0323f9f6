"""The targets: where a job can run, one module each.

To add one, write a module in this folder with a class that has the attributes and methods of
`Target`, and add it to TARGETS. `switch_jax launch --on=NAME` finds it there. For TPUs of Google
Cloud, start from `google_cloud.GoogleCloudTarget`, which has what those targets share. New flags go
into cli/launch.py, under the names that the target lists.
"""

import argparse
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from switch_jax.config import Config
from switch_jax.launch.targets.gke import Gke
from switch_jax.launch.targets.local import Local
from switch_jax.launch.targets.queued_resource import QueuedResource
from switch_jax.launch.targets.slurm import Slurm
from switch_jax.launch.targets.tpu_vm import TpuVm
from switch_jax.launch.targets.xpk import Xpk

JobT = TypeVar("JobT")  # how a target describes a job


class Target(Protocol[JobT]):
    """A place where a job can run. The methods are called in the order in which they are listed.

    Attributes:
      name: the value of --on.
      required_flags: flags of `launch`, without the hyphens, that have to be given.
      optional_flags: further flags that may be given. A flag of another target is refused.
      sees_local_folders: whether its processes can read the folders of this machine.
    """

    name: str
    required_flags: tuple[str, ...]
    optional_flags: tuple[str, ...]
    sees_local_folders: bool

    def job(self, args: argparse.Namespace, train: Sequence[str], config: Config) -> JobT:
        """Describes the job.

        Args:
          args: the flags of `launch`.
          train: the arguments of the command, without those by which processes find each other.
          config: the run.

        Raises:
          UserError: the target cannot run such a job.
        """

    def check(self, job: JobT, config: Config) -> None:
        """Checks that the config fits the job's devices. Uses no network.

        Args:
          job: what is to run.
          config: the run.

        Raises:
          UserError: it does not fit.
        """

    def describe(self, job: JobT) -> str:
        """Every command and file of the job, as a script for bash."""

    def check_storage(self, job: JobT, config: Config) -> None:
        """Checks that MODEL_DIR can be written and the data be read; not with --skip_storage.

        Raises:
          UserError: what this machine cannot write or read.
        """

    def preflight(self, job: JobT, config: Config, skip_plan: bool) -> None:
        """Checks that can take minutes, before anything is started; --dry_run ends before it.

        Args:
          job: what is to run.
          config: the run.
          skip_plan: do not compile the training step.

        Raises:
          UserError: the job would fail.
        """

    def run(self, job: JobT) -> int:
        """Runs the job, or follows it if it already runs, and starts it again after failures.

        Returns:
          The exit code of `switch_jax train`; docs/exit_codes.md lists them.

        Raises:
          UserError: the job cannot be started.
          KeyboardInterrupt: Ctrl-C ended the command and the job goes on.
        """


_ALL: tuple[Target[Any], ...] = (Local(), TpuVm(), QueuedResource(), Gke(), Xpk(), Slurm())
TARGETS: Mapping[str, Target[Any]] = {target.name: target for target in _ALL}
