"""What all targets on TPUs of Google Cloud share."""

import abc

from switch_jax.config import Config
from switch_jax.errors import UserError
from switch_jax.hardware import Slice, parse_slice
from switch_jax.launch import setup_commands
from switch_jax.launch.commands import Command, Step, check_programs, render, shell_line
from switch_jax.launch.console import going_on, log
from switch_jax.launch.job import Job
from switch_jax.units import counted


class GoogleCloudTarget(Job):
    """A target on TPUs of Google Cloud, but for what differs between them."""

    @abc.abstractmethod
    def resources(self) -> list[Command]:
        """Commands that a person runs once for this target, for example to create a cluster."""

    @abc.abstractmethod
    def commands(self) -> list[Step]:
        """The commands and files of `start_and_follow`, in the order in which it uses them."""

    @abc.abstractmethod
    def afterwards(self) -> list[Command]:
        """Commands that a person runs to end the job (the first one), and to stop paying."""

    @abc.abstractmethod
    def start_and_follow(self) -> int:
        """As `run`, which adds what is printed after Ctrl-C."""

    def check(self, config: Config) -> list[str]:
        from switch_jax.launch import preflight  # loads JAX

        return preflight.check(config, self.hardware)

    def setup(self) -> list[Command]:
        """Commands that a person runs once, in a checkout of switch_jax."""
        return [*self.resources(), *setup_commands.image(self)]

    def describe(self) -> str:
        slices = self.hardware
        size = f"{counted(slices.chips, 'chip')}, {counted(slices.hosts, 'host')}"
        title = f"{self.job_name}: {size} ({self.topology})"
        return render(title, [*self.setup(), *self.commands(), *self.afterwards()])

    def preflight(self, config: Config, skip_plan: bool) -> None:
        from switch_jax.launch import preflight

        check_programs(self.commands())
        if not skip_plan:
            log(f"compiling the step for {self.topology}, which takes some minutes")
            log(preflight.check_fits(config, self.hardware))

    def run(self) -> int:
        with going_on(self.job_name, shell_line(self.afterwards()[0].argv)):
            return self.start_and_follow()


def check_usual_shape(hardware: Slice) -> None:
    """Raises UserError if the accelerator type stands for a slice of another shape.

    For targets that ask for slices by their accelerator type, which says nothing of the shape.
    """
    generation = hardware.generation
    usual = [parse_slice(f"{generation.name}:{shape}") for shape in generation.shapes]
    alike = [s.topology for s in usual if s.accelerator_type == hardware.accelerator_type]
    if alike and hardware.topology not in alike:
        raise UserError(
            f"--topology={hardware.name}: as {hardware.accelerator_type} Google Cloud would "
            f"create the shape {alike[0]}; for another shape write --on=gke"
        )
