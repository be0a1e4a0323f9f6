"""Putting the arrays of a batch on the devices of a mesh."""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.partitioning.mesh import batch_sharding


def rows_on_this_host(mesh: Mesh, batch_size: int) -> list[int]:
    """Indices of the rows of a batch that this host's devices hold, ascending."""
    slices = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    indices = np.arange(batch_size)
    return sorted({int(i) for slice_ in slices.values() for i in indices[slice_]})


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Arrays [B, ...] over the batch axes of the mesh; each host gives the rows of its devices."""
    sharding = batch_sharding(mesh)
    return {
        name: jax.make_array_from_callback(array.shape, sharding, array.__getitem__)
        for name, array in batch.items()
    }
