"""Collectives for use inside `jax.shard_map`, each a no-op along a mesh axis of one device.

On such an axis a CPU would copy the array to compute the sum of one term.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jax import lax
from jax.sharding import PartitionSpec


def psum(x: jax.Array, axes: Iterable[str]) -> jax.Array:
    """The sum of x over the devices along the axes."""
    axes = _of_several_devices(axes)
    return lax.psum(x, axes) if axes else x


def gather_width(x: jax.Array, axis: str) -> jax.Array:
    """Joins the last axis of x, of which each device along the mesh axis has a part."""
    return lax.all_gather(x, axis, axis=x.ndim - 1, tiled=True) if lax.axis_size(axis) > 1 else x


def scatter_width(x: jax.Array, axis: str) -> jax.Array:
    """The sum of x over the devices along the mesh axis; each gets its part of the last axis."""
    if lax.axis_size(axis) == 1:
        return x
    return lax.psum_scatter(x, axis, scatter_dimension=x.ndim - 1, tiled=True)


def own_width(x: jax.Array, axis: str) -> jax.Array:
    """This device's part of the last axis."""
    devices = lax.axis_size(axis)
    if devices == 1:
        return x
    size = x.shape[-1] // devices
    return lax.dynamic_slice_in_dim(x, lax.axis_index(axis) * size, size, axis=x.ndim - 1)


def axis_index(axis: str) -> jax.Array | int:
    """The position of this device along the axis."""
    return lax.axis_index(axis) if lax.axis_size(axis) > 1 else 0


def mark_varying(x: jax.Array, axes: Iterable[str]) -> jax.Array:
    """Declares that x may differ along the axes, so that its gradient is summed over them."""
    axes = _of_several_devices(axes)
    return lax.pcast(x, axes, to="varying") if axes else x


def _of_several_devices(axes: Iterable[str]) -> tuple[str, ...]:
    return tuple(axis for axis in axes if lax.axis_size(axis) > 1)


def drop_axes_of_one(specs: Any, mesh_shape: Mapping[str, int]) -> Any:
    """Partition specs without the mesh axes of one device: nothing is said to vary along those."""

    def drop(entry: None | str | tuple[str, ...]) -> None | str | tuple[str, ...]:
        if isinstance(entry, tuple):
            return tuple(axis for axis in entry if mesh_shape[axis] > 1)
        return entry if entry and mesh_shape[entry] > 1 else None

    return jax.tree.map(
        lambda spec: PartitionSpec(*map(drop, spec)),
        specs,
        is_leaf=lambda spec: isinstance(spec, PartitionSpec),
    )
