"""Lists all checks of `switch_jax doctor`, in their order."""

from collections.abc import Callable
from functools import partial

from etils import epath
from jax.sharding import Mesh

from switch_jax.doctor import kernel_checks, step_checks
from switch_jax.doctor.checks import Failed
from switch_jax.partitioning.mesh import AXES
from switch_jax.runtime import multihost


def all_checks(mesh: Mesh, model_dir: epath.Path) -> dict[str, Callable[[], str]]:
    """Returns the checks by name, for `run_checks`; the mesh is that of `jax.set_mesh`."""
    axes, dtypes = [axis for axis in AXES if mesh.shape[axis] > 1], kernel_checks.TOLERANCES
    return {
        "versions": versions,
        **{f"attention in {d}": partial(kernel_checks.attention, mesh, d) for d in dtypes},
        "routing and its gradient": partial(kernel_checks.routing, mesh),
        "a Switch layer on the mesh": partial(step_checks.switch_layer, mesh),
        "a step, twice": partial(step_checks.step, mesh),
        "a step in microbatches, twice": partial(step_checks.step, mesh, step_checks.ROWS),
        "a checkpoint": partial(step_checks.checkpoint, mesh, model_dir),
        **{f"exchanges over {axis}": partial(step_checks.exchanges, mesh, axis) for axis in axes},
    }


def versions() -> str:
    """Checks that all processes have the same versions, and returns them."""
    found = multihost.versions()
    if differing := multihost.difference(multihost.gather(found)):
        raise Failed(differing)
    return ", ".join(f"{name} {version}" for name, version in found.items() if version != "-")
