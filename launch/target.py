"""What a target of `switch_jax launch` is, and what the jobs of all targets have."""

import abc
import argparse
import dataclasses
from collections.abc import Sequence
from typing import Generic, TypeVar

from switch_jax.config import Config

JobT = TypeVar("JobT")  # how a target describes a job


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnyJob:
    """What a job has on every target.

    Attributes:
      train: the arguments of the command, without those by which processes find each other.
      max_restarts: how often the job starts again after crashes.
      subcommand: of `switch_jax`.
    """

    train: tuple[str, ...]
    max_restarts: int = 3
    subcommand: str = "train"


class Target(abc.ABC, Generic[JobT]):
    """A place where a job can run. The methods are called in the order in which they are listed.

    Attributes:
      name: the value of --on.
      required_flags: flags of `launch`, without the hyphens, that have to be given.
      optional_flags: further flags that may be given. A flag of another target is refused.
      sees_local_folders: whether its processes can read the folders of this machine.
    """

    name: str
    required_flags: tuple[str, ...] = ()
    optional_flags: tuple[str, ...] = ()
    sees_local_folders: bool = True

    def max_restarts(self, args: argparse.Namespace) -> int:
        """How often the job starts again after crashes."""
        return AnyJob.max_restarts if args.max_restarts is None else args.max_restarts

    @abc.abstractmethod
    def job(self, args: argparse.Namespace, train: Sequence[str], config: Config) -> JobT:
        """Describes the job.

        Args:
          args: the flags of `launch`.
          train: the arguments of the command, without those by which processes find each other.
          config: the run.

        Raises:
          UserError: the target cannot run such a job.
        """

    @abc.abstractmethod
    def check(self, job: JobT, config: Config) -> list[str]:
        """Checks that the config fits the job's devices; returns warnings. Uses no network.

        Raises:
          UserError: it does not fit.
        """

    @abc.abstractmethod
    def describe(self, job: JobT) -> str:
        """Every command and file of the job, as a script for bash."""

    def preflight(self, job: JobT, config: Config, skip_plan: bool) -> None:  # noqa: B027
        """Checks that can take minutes, before anything is started; --dry_run ends before it.

        Args:
          job: what is to run.
          config: the run.
          skip_plan: do not compile the training step.

        Raises:
          UserError: the job would fail.
        """

    @abc.abstractmethod
    def run(self, job: JobT) -> int:
        """Runs the job, or follows it if it already runs, and starts it again after failures.

        Returns:
          The exit code of `switch_jax train`; docs/exit_codes.md lists them.

        Raises:
          UserError: the job cannot be started.
          KeyboardInterrupt: Ctrl-C ended the command and the job goes on.
        """
