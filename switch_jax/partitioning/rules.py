"""From the logical axes of a parameter to its place on the mesh."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.errors import UserError
from switch_jax.partitioning.mesh import EXPERT, MODEL

# Section 5: experts over the expert axis; d_ff, heads and vocabulary over the model axis.
RULES: dict[str, str | None] = {
    "layers": None,
    "expert": EXPERT,
    "embed": None,
    "mlp": MODEL,
    "heads": MODEL,
    "vocab": MODEL,
    "router": None,
    "relpos_buckets": None,
}


def parameter_shardings(axes: Any, shapes: Any, mesh: Mesh) -> Any:
    """A `NamedSharding` for each parameter.

    Args:
      axes: nested dict with a tuple of logical axis names for each array.
      shapes: the same nested dict of arrays or `ShapeDtypeStruct`s.
      mesh: the mesh.

    Raises:
      UserError: an axis does not divide over its mesh axis.
    """

    def sharding(names: tuple[str, ...], array: jax.ShapeDtypeStruct) -> NamedSharding:
        spec = [RULES[name] for name in names]
        for name, size, mesh_axis in zip(names, array.shape, spec, strict=True):
            ways = mesh.shape[mesh_axis] if mesh_axis else 1
            if size % ways:
                raise UserError(
                    f"a parameter axis {name!r} of size {size} does not divide over the mesh axis "
                    f"{mesh_axis!r} of {ways} devices ({size} % {ways} = {size % ways})"
                )
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(sharding, axes, shapes, is_leaf=lambda x: type(x) is tuple)
