"""Putting arrays on the devices of a mesh, and what each device holds of them."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.partitioning.mesh import batch_sharding


def rows_on_this_host(mesh: Mesh, batch_size: int) -> list[int]:
    """Indices of the rows of a batch that this host's devices hold, ascending."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    indices = np.arange(batch_size)
    return sorted({int(i) for slice_ in slices.values() for i in indices[slice_]})


def device_bytes(tree: Any) -> int:
    """Bytes of the part of these `ShapeDtypeStruct`s, with shardings, that each device holds."""
    return sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def total_bytes(tree: Any) -> int:
    """Bytes of one copy of these arrays, however they are sharded."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Arrays [B, ...] over the batch axes of the mesh; each host gives the rows of its devices."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
        for name, array in batch.items()
    }
