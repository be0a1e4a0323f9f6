"""From the logical names of a parameter's axes to the mesh axes that split it."""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from switch_jax.hardware.tpus import num_slices
from switch_jax.partitioning.mesh import BATCH, EXPERT, MODEL
from switch_jax.utils.errors import UserError

# Section 5: experts over the expert axis; d_ff, heads and vocabulary over the model axis.
RULES: dict[str, str | None] = {
    "layers": None,
    "expert": EXPERT,
    "embed": None,
    "mlp": MODEL,
    "heads": MODEL,
    "head": None,  # the elements of one head
    "joined_kv": None,  # heads too, of experts in attention, whose F is split
    "vocab": MODEL,
    "router": None,
    "relpos_buckets": None,
}
# Axes along which arrays are stacked, each one a matrix or vector of its own.
STACKED = ("layers", "expert")
_LANES = 128  # a TPU pads the last axis of an array to a multiple of this

# For each axis of a parameter the mesh axis, or axes, over which it is split; None = not split.
Spec = tuple[str | tuple[str, ...] | None, ...]


def is_axes(x: Any) -> bool:
    """Whether it is the names of an array's axes or a `Spec`: a leaf of a nested dict of them."""
    return type(x) is tuple  # and no NamedTuple, which may hold such leaves


def parameter_specs(
    axes: Any, shapes: Any, mesh: Mesh | AbstractMesh, fully_sharded: bool = False
) -> Any:
    """For each parameter the mesh axes over which its own axes are split: a `Spec`.

    Fully sharded (`MeshConfig.fully_sharded_weights`), a matrix is also split over the batch axes
    that do not split it yet: data and expert, or data alone for the experts' own matrices. As many
    of these as divide one of its axes are used, along the first such axis, since rows cost a TPU
    less padding than columns; where there is another way, 128 columns or more stay together. Other
    matrices, vectors and the small table of relative positions stay as they are. On several slices,
    or machines with GPUs, expert alone splits them: the network between slices, along data, is too
    slow to gather weights.

    `axes` is a nested dict with a tuple of logical axis names for each array, and `shapes` one of
    arrays or `ShapeDtypeStruct`s. Raises UserError where an axis does not divide over the mesh.
    """

    def spec(names: tuple[str, ...], array: jax.ShapeDtypeStruct) -> Spec:
        by_rule = _by_rule(names, array.shape, mesh.shape)
        # Activations are split by their width, though the matrices' side that they meet is not.
        dividing = [MODEL if n == "embed" else axis for n, axis in zip(names, by_rule, strict=True)]
        for name, size, mesh_axis in zip(names, array.shape, dividing, strict=True):
            devices = mesh.shape[mesh_axis] if mesh_axis else 1
            if mesh_axis and size % devices:
                raise UserError(
                    f"a parameter axis {name!r} of size {size} does not divide over the mesh axis "
                    f"{mesh_axis!r} of {devices} devices ({size} % {devices} = {size % devices}); "
                    f"set MESH_{mesh_axis.upper()} to a divisor of {size}"
                )
        if fully_sharded:
            return _over_batch_axes(names, array.shape, by_rule, mesh.shape, batch_axes)
        return by_rule

    slices = num_slices(mesh.devices.flat) if isinstance(mesh, Mesh) else 1
    batch_axes = (EXPERT,) if slices > 1 else BATCH
    return jax.tree.map(spec, axes, shapes, is_leaf=is_axes)


def shardings(specs: Any, mesh: Mesh | AbstractMesh) -> Any:
    """A `NamedSharding` for each `Spec` of a nested dict."""
    return jax.tree.map(
        lambda spec: NamedSharding(mesh, PartitionSpec(*spec)),
        specs,
        is_leaf=is_axes,
    )


def gather_fully_sharded(x: jax.Array, names: tuple[str, ...]) -> jax.Array:
    """A parameter, with these logical axes, as it computes: no longer split over the batch axes."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    spec = PartitionSpec(*_by_rule(names, x.shape, mesh.shape))
    return jax.lax.with_sharding_constraint(x, spec)


def splits_experts(num_experts: int, mesh_shape: Mapping[str, int]) -> bool:
    """Whether the expert axis splits the experts.

    With fewer experts than devices on that axis, each device has all of them, and computes one.
    """
    return num_experts >= mesh_shape[EXPERT]


def _by_rule(
    names: tuple[str, ...], shape: tuple[int, ...], mesh_shape: Mapping[str, int]
) -> tuple[str | None, ...]:
    """The mesh axis of each axis by the RULES."""
    return tuple(
        None if name == "expert" and not splits_experts(size, mesh_shape) else RULES[name]
        for name, size in zip(names, shape, strict=True)
    )


def _over_batch_axes(
    names: tuple[str, ...],
    shape: tuple[int, ...],
    spec: tuple[str | None, ...],
    mesh_shape: Mapping[str, int],
    batch_axes: tuple[str, ...],
) -> Spec:
    """The spec with one axis split over some of the batch axes too; see `parameter_specs`."""
    own_axes = [i for i, name in enumerate(names) if name not in STACKED]
    free = tuple(axis for axis in batch_axes if axis not in spec)
    if len(own_axes) < 2 or "relpos_buckets" in names or not free:
        return spec
    candidates = [free, *((axis,) for axis in free)]
    devices = {axes: math.prod(mesh_shape[a] for a in axes) for axes in candidates}
    candidates = [axes for axes in candidates if devices[axes] > 1]
    candidates.sort(key=devices.__getitem__, reverse=True)
    for may_be_narrow in (False, True):
        for added, i in itertools.product(candidates, own_axes):
            mesh_axis = spec[i]
            before = () if mesh_axis is None else (mesh_axis,)
            parts = math.prod(mesh_shape[a] for a in (*before, *added))
            is_narrow = i == len(shape) - 1 and shape[i] < parts * _LANES
            if shape[i] % parts == 0 and (may_be_narrow or not is_narrow):
                return (*spec[:i], (*before, *added), *spec[i + 1 :])
    return spec
