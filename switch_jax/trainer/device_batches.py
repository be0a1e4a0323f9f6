"""From the rows that this host has to arrays of the whole mesh."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.data.batch import Batch
from switch_jax.data.position import Position
from switch_jax.data.train_batches import TrainBatches
from switch_jax.partitioning.mesh import batch_sharding


class Fed(NamedTuple):
    """A batch on its way: `arrays` on the devices, `host` the rows read here, position after it."""

    arrays: dict[str, jax.Array]
    host: Batch
    position: Position


def rows_here(mesh: Mesh, batch_size: int) -> list[int]:
    """Numbers of the rows of a batch that this host's devices hold, ascending."""
    places = batch_sharding(mesh).addressable_devices_indices_map((batch_size,))
    numbers = np.arange(batch_size)
    return sorted({int(n) for place in places.values() for n in numbers[place]})


def to_devices(batch: Batch, mesh: Mesh) -> dict[str, jax.Array]:
    """Arrays [B, ...] over the batch axes of the mesh; each host gives the rows of its devices."""
    place = batch_sharding(mesh)
    return {
        name: jax.make_array_from_callback(array.shape, place, array.__getitem__)
        for name, array in batch.items()
    }


def feed(batches: TrainBatches, mesh: Mesh) -> Iterator[Fed]:
    """The batches, on the devices."""
    for batch, position in batches:
        yield Fed(to_devices(batch, mesh), batch, position)
