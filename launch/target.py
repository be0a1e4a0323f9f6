"""The base class of targets of `switch_jax launch`: a job that can run there."""

import abc
import dataclasses
import re
import typing
from typing import Annotated, Any, ClassVar, NamedTuple

from switch_jax.config import Config
from switch_jax.launch.commands import quote
from switch_jax.utils.errors import UserError

# Names such as NAME-slice-3-63 are made of it, which may have 63 characters.
_LONGEST_NAME = 40
_LABEL = r"[a-z]([-a-z0-9]*[a-z0-9])?"  # RFC 1035
_MAX_RESTARTS = 1_000_000  # JobSet counts them in 32 bits


class Flag(NamedTuple):
    """An annotation of a field that is a flag of `launch` by the same name.

    A field without a default has to be given. One that is a bool takes no value, a Literal one of
    its values, and a tuple of texts has one for each time that the flag is given.
    """

    help: str
    metavar: str | None = None


JobName = Annotated[str, Flag("of the job, and of what is created for it", "NAME")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target(abc.ABC):
    """A job on a target. The methods are called in the order in which they are listed.

    Attributes:
      on: the value of --on.
      sees_local_folders: whether its processes can read the folders of this machine.
      arguments: those of the command, without those by which processes find each other.
    """

    on: ClassVar[str]
    sees_local_folders: ClassVar[bool] = True

    arguments: tuple[str, ...]
    model_dir: str
    subcommand: str = "train"
    max_restarts: Annotated[
        int | None,
        Flag(
            "how often to start again after crashes without a new checkpoint (default 3; with "
            "--spot on gke and xpk 100)",
            "N",
        ),
    ] = None

    def __post_init__(self) -> None:
        """Raises UserError if the target cannot run the job, whatever the config is."""
        if not 0 <= self.restarts <= _MAX_RESTARTS:
            raise UserError(f"--max_restarts={self.restarts}: write 0 to {_MAX_RESTARTS:,}")

    @classmethod
    def flags(cls) -> dict[str, tuple[Any, Flag]]:
        """Returns the type and the `Flag` of each field that is a flag, by name."""
        return {
            name: (hint.__origin__, note)
            for name, hint in typing.get_type_hints(cls, include_extras=True).items()
            for note in getattr(hint, "__metadata__", ())
            if isinstance(note, Flag)
        }

    @classmethod
    def required_flags(cls) -> list[str]:
        defaults = {field.name: field.default for field in dataclasses.fields(cls)}
        return [name for name in cls.flags() if defaults[name] is dataclasses.MISSING]

    @property
    def restarts(self) -> int:
        """The most starts after crashes without a new checkpoint."""
        return 3 if self.max_restarts is None else self.max_restarts

    @abc.abstractmethod
    def check(self, config: Config) -> list[str]:
        """Warnings about the config; UserError where it does not fit. Uses no network."""

    @abc.abstractmethod
    def describe(self) -> str:
        """Every command and file of the job, as a script for bash."""

    def preflight(self, config: Config, skip_plan: bool) -> None:  # noqa: B027
        """Checks that can take minutes, before anything is started; --dry_run ends before it.

        UserError where the job would fail. With `skip_plan` the training step is not compiled.
        """

    def plan(self, config: Config) -> None:  # noqa: B027
        """Compiles the training step where that tells its memory, speed and price; prints them."""

    @abc.abstractmethod
    def run(self) -> int:
        """Runs the job, or follows it if it already runs, and starts it again after failures.

        Returns the exit code of `switch_jax train` (docs/exit_codes.md). UserError where the job
        cannot be started; KeyboardInterrupt where Ctrl-C ended the command and the job goes on.
        """


def check_name(name: str) -> None:
    """Raises UserError if a target would refuse the name of a job."""
    if not re.fullmatch(_LABEL, name) or len(name) > _LONGEST_NAME:
        raise UserError(
            f"--job_name={quote(name)}: write at most {_LONGEST_NAME} small letters, digits "
            "and hyphens, a letter first and no hyphen last"
        )
