"""All checks of `switch_jax doctor`, in their order."""

from collections.abc import Iterator

from etils import epath
from jax.sharding import Mesh

from switch_jax.doctor.checks import Check
from switch_jax.doctor.installed import installed_checks
from switch_jax.doctor.kernels import kernel_checks
from switch_jax.doctor.layers import layer_checks
from switch_jax.doctor.speed import speed_checks
from switch_jax.doctor.steps import config_of, step_checks


def all_checks(mesh: Mesh, folder: epath.Path) -> Iterator[Check]:
    """What is here, whether it is right, and how fast.

    Args:
      mesh: also that of `jax.set_mesh`.
      folder: where runs are kept.
    """
    yield from installed_checks(mesh)
    yield from kernel_checks(config_of(mesh, "float32").model)
    yield from layer_checks(mesh)
    yield from step_checks(mesh, folder / "switch_jax_doctor")
    yield from speed_checks(mesh, None, None)
