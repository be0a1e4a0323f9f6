"""How the arrays of a statistic are joined in a step, for each `switch_jax.metrics.Join`."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from switch_jax.metrics import Join
from switch_jax.partitioning.collectives import psum
from switch_jax.partitioning.mesh import BATCH


class ArrayJoin(NamedTuple):
    """How a statistic of devices and of microbatches becomes one of the step.

    Attributes:
      of_device: within `jax.shard_map`, from a device's value to what leaves it.
      spec: how devices have what leaves them.
      of_step: from what left them, [N, ...] for N layers, to the statistic of all devices. It is
        for what is no sum, and so another collective: at the end of the step there is one of it
        for all layers.
      of_microbatch: from the value of a microbatch, and its share of the real tokens of the step,
        to what is joined with that of others.
      add: joins two microbatches.
      start: what leaves any value as it is, when it is joined with it.
    """

    of_device: Callable[[jax.Array], jax.Array]
    spec: PartitionSpec
    of_step: Callable[[jax.Array], jax.Array]
    of_microbatch: Callable[[jax.Array, jax.Array], jax.Array]
    add: Callable[[jax.Array, jax.Array], jax.Array]
    start: float


# A mean over devices and microbatches is a sum, since each brings its share of the mean.
_SUM = ArrayJoin(
    of_device=lambda x: psum(x, BATCH),
    spec=PartitionSpec(),
    of_step=lambda x: x,
    of_microbatch=lambda x, share: x,
    add=jnp.add,
    start=0.0,
)
ARRAY_JOINS: Mapping[Join, ArrayJoin] = {
    Join.MEAN: _SUM._replace(of_microbatch=lambda x, share: x * share),
    Join.SUM: _SUM,
    Join.LARGEST: ArrayJoin(
        of_device=lambda x: x[None],
        spec=PartitionSpec(BATCH),  # [devices, ...]
        of_step=lambda x: x.max(axis=-1),
        of_microbatch=lambda x, share: x,
        add=jnp.maximum,
        start=-jnp.inf,
    ),
}
