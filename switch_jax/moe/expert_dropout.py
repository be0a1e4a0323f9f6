"""Expert dropout: dropout of the hidden activation inside the experts (section 2.4)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.partitioning.collectives import axis_index
from switch_jax.partitioning.mesh import DATA, EXPERT, MODEL


def expert_dropout(
    rate: float,
    key: jax.Array,
    *,
    expert_shards: int,
    groups: int,
    capacity: int,
) -> Callable[[jax.Array], jax.Array]:
    """The dropout of one layer, as a function for use within `jax.shard_map`.

    The mask is drawn for each expert, each group and all of F, and then cut to this device's part
    of F. So it is the same on every mesh.

    Args:
      rate: in (0, 1), the probability that an element is zeroed; the others are scaled.
      key: of this layer's expert dropout.
      expert_shards: the number of devices that the rows came from.
      groups: G_local, the groups of one device.
      capacity: C.

    Returns:
      A function of hidden activations [E_local, expert_shards * G_local * C, F_local].
    """

    def dropout(hidden: jax.Array) -> jax.Array:
        num_local, _, features = hidden.shape
        all_features = features * lax.axis_size(MODEL)  # F
        device = axis_index(EXPERT)
        expert = device % expert_shards * num_local + jnp.arange(num_local)  # [E_local]
        # The rows came from the devices that share out the experts with this one.
        data_device = axis_index(DATA) * lax.axis_size(EXPERT)
        first_device = data_device + device // expert_shards * expert_shards
        group = first_device * groups + jnp.arange(expert_shards * groups)  # [shards * G_local]

        def keep(expert: jax.Array, group: jax.Array) -> jax.Array:
            mask_key = jax.random.fold_in(jax.random.fold_in(key, group), expert)
            mask = jax.random.bernoulli(mask_key, 1 - rate, (capacity, all_features))  # [C, F]
            start = axis_index(MODEL) * features
            return lax.dynamic_slice_in_dim(mask, start, features, axis=1)  # [C, F_local]

        keep_in_groups = jax.vmap(keep, in_axes=(None, 0))
        mask = jax.vmap(keep_in_groups, in_axes=(0, None))(expert, group)
        mask = mask.reshape(hidden.shape)  # [E_local, shards * G_local * C, F_local]
        return jnp.where(mask, hidden / (1 - rate), 0).astype(hidden.dtype)

    return dropout
