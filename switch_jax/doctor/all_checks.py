"""All checks of `switch_jax doctor`, in their order."""

import functools
from collections.abc import Iterator

from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.doctor.checks import Check, Finding, Verdict, first_line
from switch_jax.doctor.input_pipeline import input_check
from switch_jax.doctor.installed import installed_checks
from switch_jax.doctor.kernels import kernel_checks
from switch_jax.doctor.layers import switch_layer
from switch_jax.doctor.speed import Machine, speed_checks
from switch_jax.doctor.step_time import step_time_checks
from switch_jax.doctor.steps import step_checks
from switch_jax.doctor.storage import checkpoint
from switch_jax.storage import storage_path


def all_checks(config: Config, text: str, mesh: Mesh, *, shrink: bool) -> Iterator[Check]:
    """What is here, whether it is right, and how fast.

    Args:
      config: its step is measured, on its mesh.
      text: the config as a gin file.
      mesh: also that of `jax.set_mesh`.
      shrink: halve BATCH_SIZE until a step fits in memory.
    """
    machine = Machine(mesh)
    folder = storage_path(config.run.model_dir, "MODEL_DIR")
    yield from _all_of("installed", installed_checks(mesh))
    yield from _all_of("kernels", kernel_checks(mesh))
    yield Check("Switch layer on the mesh", functools.partial(switch_layer, mesh))
    yield from _all_of("small steps", step_checks(mesh))
    yield Check("a checkpoint", functools.partial(checkpoint, mesh, folder))
    yield from _all_of("speeds", speed_checks(machine))
    yield from _all_of("steps", step_time_checks(config, text, machine, shrink=shrink))
    yield Check("input pipeline", functools.partial(input_check, config, machine))


def _all_of(name: str, checks: Iterator[Check]) -> Iterator[Check]:
    """The checks; where one of them cannot be made, one that fails stands for it and the rest."""
    try:
        yield from checks
    except Exception as error:  # whatever a machine that nobody knows raises
        found = Finding(Verdict.FAILED, f"cannot be checked: {first_line(error)}")
        yield Check(name, lambda: found)
