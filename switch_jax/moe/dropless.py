"""The Switch layer for decoding: few tokens, no capacity, and no token dropped.

With more experts than tokens, most slots of a capacity would be empty. Here each expert computes
its own tokens, in blocks of a few rows, and only the blocks that hold tokens are computed. The
shape letters are those of `switch_jax.moe`; T tokens of all the devices that share out the experts,
with k experts for each: k * T choices.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from switch_jax.moe.experts import SwitchWeights, cast, expert_axis, partition_specs
from switch_jax.moe.router import Distribution
from switch_jax.moe.routing import Router
from switch_jax.moe.tokens import Tokens
from switch_jax.partitioning.collectives import gather_width, scatter_width
from switch_jax.partitioning.mesh import ACTIVATIONS, BATCH, MODEL, current_mesh

MAX_BLOCK_ROWS = 256  # more would not fill a TPU's matrix unit better


class ExpertBlocks(NamedTuple):
    """Choices sorted by expert, and cut into blocks of rows, each of one expert.

    Attributes:
      order: [k * T] int32, the choices, those of the first expert first; those of no expert last.
      first_block: [E + 1] int32, index of each expert's first block; at the end the number of
        blocks.
      first_row: [E] int32, position in `order` of each expert's first choice.
    """

    order: jax.Array
    first_block: jax.Array
    first_row: jax.Array


def block_rows(choices: int, num_experts: int) -> int:
    """The rows of a block: the choices of an expert at balance, from 1 to 256.

    Counted over all devices that share out the experts: so fewer than 2 k T rows are computed.
    """
    return min(MAX_BLOCK_ROWS, max(1, choices // num_experts))


def cut_into_blocks(expert_index: jax.Array, num_experts: int, rows: int) -> ExpertBlocks:
    """[k * T] int32, the expert of each choice, E for one that is not here -> blocks of `rows`."""
    is_chosen = expert_index[:, None] == jnp.arange(num_experts)  # [k * T, E]
    load = jnp.sum(is_chosen, axis=0, dtype=jnp.int32)  # [E]
    blocks = -(-load // rows)  # [E]
    return ExpertBlocks(
        order=jnp.argsort(expert_index, stable=True).astype(jnp.int32),  # [k * T]
        first_block=jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(blocks)]),  # [E + 1]
        first_row=jnp.cumsum(load) - load,  # [E]
    )


def dropless_ffn(
    x: jax.Array,
    tokens: Tokens,
    weights: SwitchWeights,
    router: Router,
    activation: Callable[..., jax.Array],
) -> jax.Array:
    """Sends each token through the experts that it chooses (section 2.1), without a capacity.

    What a token gets does not depend on the other tokens. Not differentiable.

    Args:
      x: [B, L, D] activations, in whose dtype the experts compute.
      tokens: [B, L]; for padding nothing is computed.
      weights, router: as for `moe.switch_ffn`.
      activation: from the projections by each `wi` to the hidden activation, elementwise.

    Returns:
      [B, L, D], or as wide as `wo` gives it, 0 on padding.
    """
    mesh = current_mesh()
    axis = expert_axis(weights.num_experts, mesh.shape)
    rows = PartitionSpec(BATCH)
    layer = jax.shard_map(
        functools.partial(_dropless_ffn_local, router=router, activation=activation, axis=axis),
        mesh=mesh,
        in_specs=(ACTIVATIONS, rows, *partition_specs(weights.num_experts, mesh.shape)),
        out_specs=ACTIVATIONS,
        check_vma=False,  # the number of blocks, and so of iterations of the loop, varies
    )
    return layer(x, tokens, *cast(weights, x.dtype))


def _dropless_ffn_local(
    x: jax.Array,
    tokens: Tokens,
    *arrays: Any,
    router: Router,
    activation: Callable[..., jax.Array],
    axis: str | None,
) -> jax.Array:
    """One device's part: its rows of the batch, its experts, its slice of F."""
    weights, num_experts = SwitchWeights(*arrays), router.config.num_experts
    distribution = Distribution.of(router.logits(x, weights.router, None, (MODEL,)))
    choices, gates = router.choose(
        distribution, tokens, weights.router_bias, None
    )  # [B_local, k, L] each
    choices = jnp.where(tokens.valid[:, None], choices, num_experts)
    expert_index = jnp.moveaxis(choices, 1, 0).reshape(choices.shape[1], -1)  # [k, B_local * L]
    rows = x.reshape(-1, x.shape[-1])  # [B_local * L, D_local]
    rows = gather_width(rows, MODEL)  # [B_local * L, D]
    if axis:  # each device has few tokens: all of them go to all devices
        rows = lax.all_gather(rows, axis, tiled=True)  # [T, D]
        expert_index = lax.all_gather(expert_index, axis, axis=1, tiled=True)  # [k, T]
        num_local = weights.num_experts
        first_expert = lax.axis_index(axis) * num_local
        is_here = (expert_index >= first_expert) & (expert_index < first_expert + num_local)
        expert_index = jnp.where(is_here, expert_index - first_expert, num_local)
    y = _experts(rows, expert_index, weights, num_experts, activation)  # [k, T, D]
    if axis:
        y = lax.psum_scatter(y, axis, scatter_dimension=1, tiled=True)
    y = scatter_width(y, MODEL)  # [k, B_local * L, D_local]
    y = y.reshape(-1, *x.shape[:-1], y.shape[-1])  # [k, B_local, L, D_local]
    gates = jnp.moveaxis(gates, 1, 0)[..., None]  # [k, B_local, L, 1]
    return jnp.sum(y.astype(jnp.float32) * gates, axis=0).astype(x.dtype)  # [B_local, L, D]


def _experts(
    tokens: jax.Array,
    expert_index: jax.Array,
    weights: SwitchWeights,
    num_experts: int,
    activation: Callable[..., jax.Array],
) -> jax.Array:
    """[T, D], [k, T] -> [k, T, D], each token through its experts; 0 for those not here."""
    width, num_local = weights.wo.shape[-1], weights.num_experts
    shape = (*expert_index.shape, width)
    tokens = jnp.concatenate([tokens] * shape[0])  # [k * T, D]
    expert_index = expert_index.reshape(-1)  # [k * T]
    count = tokens.shape[0]
    # By the experts of all devices, since those here get only their share of the tokens.
    rows = block_rows(count, num_experts)
    order, first_block, first_row = cut_into_blocks(expert_index, num_local, rows)
    # The last rows of a block may be the next expert's tokens. That expert's own block comes later
    # and overwrites the results. After the last token there is room for a whole block.
    sorted_tokens = jnp.pad(tokens[order], ((0, rows), (0, 0)))  # [k * T + rows, D]

    def compute(block: jax.Array, results: jax.Array) -> jax.Array:
        expert = jnp.searchsorted(first_block, block, side="right") - 1
        row = first_row[expert] + (block - first_block[expert]) * rows
        x = lax.dynamic_slice_in_dim(sorted_tokens, row, rows)  # [rows, D]
        wi, wo = jax.tree.map(
            lambda w: lax.dynamic_index_in_dim(w, expert, keepdims=False),
            (weights.wi, weights.wo),
        )  # [D, F], [F, D]
        y = activation(*[x @ w for w in wi]) @ wo  # [rows, D]
        return lax.dynamic_update_slice_in_dim(results, y, row, axis=0)

    results = lax.fori_loop(
        0, first_block[-1], compute, jnp.zeros((sorted_tokens.shape[0], width), tokens.dtype)
    )  # [k * T + rows, D]
    # The inverse of `order`.
    position = jnp.zeros(count, jnp.int32)  # [k * T]
    position = position.at[order].set(jnp.arange(count, dtype=jnp.int32))  # [k * T]
    y = jnp.where((expert_index < num_local)[:, None], results[position], 0)  # [k * T, D]
    return y.reshape(shape)
