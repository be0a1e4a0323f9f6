"""The experts: E feed-forward layers, their weights on the mesh, and dropout inside them."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from switch_jax.kernels.by_platform import batched_matmul
from switch_jax.partitioning.collectives import (
    axis_index,
    gather_width,
    mark_varying,
    scatter_width,
)
from switch_jax.partitioning.mesh import DATA, EXPERT, MODEL
from switch_jax.partitioning.rules import splits_experts


class SwitchWeights(NamedTuple):
    """The weights of a Switch layer.

    Attributes:
      router: [D, E] float32 (section 2.4), or bfloat16 (Table 2); the router computes in it.
      wi: one or two (gated) of [E, D, F].
      wo: [E, F, D], or with another width than D, as in attention.
      router_bias: [E] float32, added to standardised logits when experts are chosen, to even out
        their load; None = nothing is added.
    """

    router: jax.Array
    wi: tuple[jax.Array, ...]
    wo: jax.Array
    router_bias: jax.Array | None = None

    @property
    def num_experts(self) -> int:
        """E, or within `jax.shard_map` the number of experts on this device."""
        return self.wo.shape[0]


def cast(weights: SwitchWeights, dtype: jnp.dtype) -> SwitchWeights:
    """The experts' matrices in the activations' dtype; the router keeps its own."""
    wi = tuple(w.astype(dtype) for w in weights.wi)
    return weights._replace(wi=wi, wo=weights.wo.astype(dtype))


def partition_specs(num_experts: int, mesh_shape: Mapping[str, int]) -> tuple[PartitionSpec, ...]:
    """How each field of `SwitchWeights` lies on the mesh, in their order.

    The experts are split over the expert axis, and their F over the model axis, as is the router's
    D, since activations are.
    """
    experts = expert_axis(num_experts, mesh_shape)
    router = PartitionSpec(MODEL, None)  # [D, E]
    wi = PartitionSpec(experts, None, MODEL)  # [E, D, F]
    wo = PartitionSpec(experts, MODEL, None)  # [E, F, D]
    return router, wi, wo, PartitionSpec()


def expert_axis(num_experts: int, mesh_shape: Mapping[str, int]) -> str | None:
    """The mesh axis that experts are split over; None where each device has all of them."""
    splits = mesh_shape[EXPERT] > 1 and splits_experts(num_experts, mesh_shape)
    return EXPERT if splits else None


def local_experts(weights: SwitchWeights, expert_shards: int) -> SwitchWeights:
    """The experts that this device computes, as `expert_mlp` takes them.

    Their gradients are summed over the devices that compute the same experts: once, however many
    chunks of slots they compute.

    Args:
      weights: this device's: [E_local, D, F_local] and [E_local, F_local, D]; with fewer experts
        than devices on the expert axis, those of all experts, of which it computes one.
      expert_shards: see `exchange.num_expert_shards`.
    """
    wi, wo = jax.tree.map(lambda w: mark_varying(w, (DATA,)), (weights.wi, weights.wo))
    if expert_shards < lax.axis_size(EXPERT):
        wi, wo = jax.tree.map(
            lambda w: lax.dynamic_slice_in_dim(w, axis_index(EXPERT) % expert_shards, 1), (wi, wo)
        )
    return weights._replace(wi=wi, wo=wo)


def expert_mlp(
    buffers: jax.Array,
    weights: SwitchWeights,
    activation: Callable[..., jax.Array],
    dropout: Callable[[jax.Array], jax.Array] | None,
) -> jax.Array:
    """E_i(x): each row through the two layers of its expert, within `jax.shard_map`.

    Args:
      buffers: [expert shards, E_local, rows, D_local]: shard i came from the i-th of the devices
        that share out the experts. The rows are the G_local * C slots of an expert on one device,
        or a chunk of them. The result has the same shape, but rows as wide as `wo` gives them.
      weights: [E_local, D, F_local] and [E_local, F_local, D], from `local_experts`.
      activation: from the projections by each `wi` to the hidden activation, elementwise.
      dropout: of the hidden activation [E_local, expert shards * rows, F_local]; None = none.
    """
    shards, experts, rows, dim = buffers.shape
    # One matrix of rows for each expert: a fourth axis would cost a TPU transpositions between the
    # matrix products. With one expert on a device this moves nothing.
    x = jnp.swapaxes(buffers, 0, 1)  # [E_local, shards, rows, D_local]
    x = x.reshape(experts, shards * rows, dim)  # [E_local, shards * rows, D_local]
    x = gather_width(x, MODEL)  # [E_local, shards * rows, D]
    hidden = activation(
        *[batched_matmul(x, w) for w in weights.wi]
    )  # [E_local, shards * rows, F_local]
    if dropout is not None:
        hidden = dropout(hidden)  # [E_local, shards * rows, F_local]
    y = batched_matmul(hidden, weights.wo)  # [E_local, shards * rows, D], of this device's F
    y = scatter_width(y, MODEL)  # [E_local, shards * rows, D_local]
    y = y.reshape(experts, shards, rows, y.shape[-1])  # [E_local, shards, rows, D_local]
    return jnp.swapaxes(y, 0, 1)  # [shards, E_local, rows, D_local]


def expert_dropout(
    rate: float, key: jax.Array, *, expert_shards: int, groups: int, capacity: int
) -> Callable[[jax.Array], jax.Array]:
    """Dropout of the hidden activation inside the experts (section 2.4), within `jax.shard_map`.

    The mask is drawn for each expert, each group and all of F, and then cut to this device's part
    of F. So it is the same on every mesh.

    Args:
      rate: in (0, 1), the probability that an element is zeroed; the others are scaled.
      key: of this layer's expert dropout.
      expert_shards: the number of devices that the rows came from.
      groups, capacity: G_local, C.

    Returns a function of hidden activations [E_local, expert_shards * G_local * C, F_local].
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
