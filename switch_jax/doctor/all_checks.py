"""All checks of `switch_jax doctor`, in their order."""

from collections.abc import Iterator

from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.doctor.checks import Check
from switch_jax.doctor.input_pipeline import input_checks
from switch_jax.doctor.installed import installed_checks
from switch_jax.doctor.kernels import kernel_checks
from switch_jax.doctor.layers import layer_checks
from switch_jax.doctor.speed import Machine, speed_checks
from switch_jax.doctor.step_time import step_time_checks
from switch_jax.doctor.steps import step_checks
from switch_jax.doctor.storage import storage_checks
from switch_jax.storage import storage_path


def all_checks(config: Config, text: str, mesh: Mesh, *, shrink: bool) -> Iterator[Check]:
    """What is here, whether it is right, and how fast.

    Args:
      config: its step is measured, on its mesh.
      text: the config as a gin file.
      mesh: also that of `jax.set_mesh`.
      shrink: halve BATCH_SIZE until a step fits in memory.
    """
    yield from installed_checks(mesh)
    yield from kernel_checks(mesh)
    yield from layer_checks(mesh)
    yield from step_checks(mesh)
    yield from storage_checks(mesh, storage_path(config.run.model_dir, "MODEL_DIR"))
    machine = Machine(mesh)
    yield from speed_checks(machine)
    yield from step_time_checks(config, text, machine, shrink=shrink)
    yield from input_checks(config, machine)
