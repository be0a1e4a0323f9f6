"""The experts: E feed-forward layers, each for its own slots."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.kernels import cpu_matmul
from switch_jax.moe.expert_weights import SwitchWeights
from switch_jax.partitioning.collectives import axis_index, mark_varying, psum
from switch_jax.partitioning.mesh import DATA, EXPERT, MODEL, platform


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
      buffers: [expert shards, E_local, rows, D]: shard i came from the i-th of the devices that
        share out the experts. The rows are the G_local * C slots of an expert on one device, or a
        chunk of them.
      weights: [E_local, D, F_local] and [E_local, F_local, D], from `local_experts`.
      activation: from the projections by each `wi` to the hidden activation, elementwise.
      dropout: of the hidden activation [E_local, expert shards * rows, F_local]; None = none.

    Returns:
      The shape of `buffers`, or rows as wide as `wo` gives them.
    """
    shards, experts, rows, dim = buffers.shape
    # One matrix of rows for each expert: a fourth axis would cost a TPU transpositions between the
    # matrix products. With one expert on a device this moves nothing.
    x = mark_varying(buffers, (MODEL,))
    x = jnp.swapaxes(x, 0, 1).reshape(experts, shards * rows, dim)  # [E_local, shards * rows, D]
    hidden = activation(*[_matmul(x, w) for w in weights.wi])  # [E_local, shards * rows, F_local]
    if dropout is not None:
        hidden = dropout(hidden)  # [E_local, shards * rows, F_local]
    y = _matmul(hidden, weights.wo)  # [E_local, shards * rows, D], the part of this device's F
    y = psum(y, (MODEL,))  # [E_local, shards * rows, D]
    y = y.reshape(experts, shards, rows, y.shape[-1])  # [E_local, shards, rows, D]
    return jnp.swapaxes(y, 0, 1)  # [shards, E_local, rows, D]


def _matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """[E_local, rows, D] x [E_local, D, F] -> [E_local, rows, F]."""
    if x.shape[0] == 1:  # a batch axis of 1 makes a TPU copy the weights into another layout
        return (x[0] @ w[0])[None]
    if platform() == "cpu":
        return cpu_matmul.matmul(x, w)
    return jnp.einsum("erd,edf->erf", x, w)
