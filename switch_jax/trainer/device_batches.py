"""From the rows that this host has read to arrays over the whole mesh."""

from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from switch_jax.data.packing import Batch
from switch_jax.data.reading.position import Position
from switch_jax.data.train_batches import TrainBatches
from switch_jax.partitioning.placing import put_batch


class DeviceBatch(NamedTuple):
    """A batch over the mesh; on the `host`, with the rows that it read; and the position after."""

    arrays: dict[str, jax.Array]
    host: Batch
    position: Position


def device_batches(batches: TrainBatches, mesh: Mesh) -> Iterator[DeviceBatch]:
    """The batches, put on the devices."""
    for batch, position in batches:
        yield DeviceBatch(put_batch(batch, mesh), batch, position)
