"""From the logical axes of a parameter to its place on the mesh."""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from switch_jax.errors import UserError
from switch_jax.partitioning.mesh import BATCH, DATA, EXPERT, MODEL

# Section 5: experts over the expert axis, unless they are fewer than it has devices: then each
# device has them all; d_ff, heads and vocabulary over the model axis.
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
# Axes along which arrays are stacked, each one a matrix or vector of its own.
STACKED = ("layers", "expert")


def parameter_places(
    axes: Any, shapes: Any, mesh: Mesh | AbstractMesh, fully_sharded: bool = False
) -> Any:
    """For each axis of each parameter the mesh axis, or axes, that it is split over; or None.

    Fully sharded, a matrix is also split over the batch axes that it is not split over yet (data
    and expert; data alone for the experts' own), as many of them as divide one of its axes, and
    along the first such axis: rows cost a TPU less padding than columns. A matrix that none of them
    divides stays as it is, and so do vectors and the table of relative positions: they are small.

    Args:
      axes: nested dict with a tuple of logical axis names for each array.
      shapes: the same nested dict of arrays or `ShapeDtypeStruct`s.
      mesh: the mesh.
      fully_sharded: see `MeshConfig.fully_sharded_weights`.

    Raises:
      UserError: an axis does not divide over its mesh axis.
    """

    def place(names: tuple[str, ...], array: jax.ShapeDtypeStruct) -> tuple[Any, ...]:
        places = _by_rule(names, array.shape, mesh.shape)
        for name, size, mesh_axis in zip(names, array.shape, places, strict=True):
            ways = mesh.shape[mesh_axis] if mesh_axis else 1
            if mesh_axis and size % ways:
                raise UserError(
                    f"a parameter axis {name!r} of size {size} does not divide over the mesh axis "
                    f"{mesh_axis!r} of {ways} devices ({size} % {ways} = {size % ways}); set "
                    f"MESH_{mesh_axis.upper()} to a divisor of {size}"
                )
        if fully_sharded:
            return _over_batch_axes(names, array.shape, places, mesh.shape)
        return places

    return jax.tree.map(place, axes, shapes, is_leaf=lambda x: type(x) is tuple)


def shardings(places: Any, mesh: Mesh | AbstractMesh) -> Any:
    """A `NamedSharding` for each tuple of places."""
    return jax.tree.map(
        lambda place: NamedSharding(mesh, PartitionSpec(*place)),
        places,
        is_leaf=lambda x: type(x) is tuple,
    )


def parameter_shardings(axes: Any, shapes: Any, mesh: Mesh, fully_sharded: bool = False) -> Any:
    """The `shardings` of the `parameter_places`."""
    return shardings(parameter_places(axes, shapes, mesh, fully_sharded), mesh)


def gather(x: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """A parameter as it is computed with: split by the rules, and no longer over the batch axes."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    spec = PartitionSpec(*_by_rule(names, x.shape, mesh.shape))
    return jax.lax.with_sharding_constraint(x, spec)


def _by_rule(
    names: tuple[str, ...], shape: tuple[int, ...], mesh_shape: Mapping[str, int]
) -> tuple[str | None, ...]:
    sizes = dict(zip(names, shape, strict=True))
    few = sizes.get("expert", 0) < mesh_shape[EXPERT]
    return tuple(None if few and name == "expert" else RULES[name] for name in names)


def _over_batch_axes(
    names: tuple[str, ...],
    shape: tuple[int, ...],
    places: tuple[str | None, ...],
    mesh_shape: Mapping[str, int],
) -> tuple[Any, ...]:
    own = [i for i, name in enumerate(names) if name not in STACKED]
    if len(own) < 2 or "relpos_buckets" in names:
        return places
    subsets = [(DATA,)] if EXPERT in places else [BATCH, (DATA,), (EXPERT,)]
    ways = {axes: math.prod(mesh_shape[a] for a in axes) for axes in subsets}
    for added in sorted(subsets, key=ways.__getitem__, reverse=True):
        for i in own:
            before = () if places[i] is None else (places[i],)
            if shape[i] % math.prod(mesh_shape[a] for a in (*before, *added)) == 0:
                return (*places[:i], (*before, *added), *places[i + 1 :])
    return places
