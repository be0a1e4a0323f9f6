"""The Switch layer for decoding: few tokens, none dropped, and as much work as there are tokens.

Slots of a capacity would be empty for the most part where there are more experts than tokens. Here
each expert computes its own tokens in blocks of a few rows, and a block that no token needs is not
computed. Shape letters: see `switch_jax.moe`; T tokens.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from switch_jax.moe.layer import ExpertParameters, expert_axis
from switch_jax.moe.router import router_logits
from switch_jax.partitioning.mesh import BATCH, MODEL, current_mesh

MOST_ROWS = 256  # of a block: more would not fill a TPU's matrix unit better


class Blocks(NamedTuple):
    """Tokens sorted by expert, and cut into blocks, each of one expert.

    Attributes:
      order: [T] int32, the tokens, those of the first expert first; those of no expert last.
      first_block: [E + 1] int32, number of each expert's first block; at the end that of all.
      first_row: [E] int32, place in `order` of each expert's first token.
    """

    order: jax.Array
    first_block: jax.Array
    first_row: jax.Array


def rows_of_a_block(tokens: int, experts: int) -> int:
    """As many as an expert has tokens at balance: fewer than 2 T rows are then computed in all.

    Args:
      tokens: T, of all devices that share the experts out.
      experts: E, of all of them.
    """
    return min(MOST_ROWS, max(1, tokens // experts))


def blocks_of(expert: jax.Array, experts: int, rows: int) -> Blocks:
    """Cuts tokens into blocks.

    Args:
      expert: [T] int32, each token's expert; E or more for a token that none here computes.
      experts: E.
      rows: tokens of a block; an expert's last block may have fewer.
    """
    load = jnp.sum(expert[:, None] == jnp.arange(experts), axis=0, dtype=jnp.int32)
    blocks = -(-load // rows)
    return Blocks(
        order=jnp.argsort(expert, stable=True).astype(jnp.int32),
        first_block=jnp.concatenate([jnp.zeros(1, jnp.int32), jnp.cumsum(blocks)]),
        first_row=jnp.cumsum(load) - load,
    )


def dropless_ffn(
    x: jax.Array,
    valid: jax.Array,
    parameters: ExpertParameters,
    activation: Callable[..., jax.Array],
) -> jax.Array:
    """Sends each token through its most probable expert (section 2.1), without a capacity.

    Not differentiable. What a token gets does not depend on the other tokens.

    Args:
      x: [B, L, D] activations, in whose dtype the experts compute.
      valid: [B, L] bool; False on padding, for which nothing is computed.
      parameters: the weights, split over the mesh as for `moe.layer.switch_ffn`.
      activation: from the projections by each `wi` to the hidden activation, elementwise.

    Returns:
      [B, L, D], 0 on padding.
    """
    mesh = current_mesh()
    spread = expert_axis(parameters.wo.shape[0], mesh.shape)
    specs = ExpertParameters(
        router=PartitionSpec(),
        wi=(PartitionSpec(spread, None, MODEL),) * len(parameters.wi),
        wo=PartitionSpec(spread, MODEL, None),
    )
    parameters = ExpertParameters(
        parameters.router.astype(jnp.float32),
        tuple(w.astype(x.dtype) for w in parameters.wi),
        parameters.wo.astype(x.dtype),
    )
    rows = PartitionSpec(BATCH)
    return jax.shard_map(
        functools.partial(_local, activation=activation, spread=spread),
        mesh=mesh,
        in_specs=(rows, rows, specs),
        out_specs=rows,
        check_vma=False,  # the number of blocks, and so of turns of the loop, varies
    )(x, valid, parameters)


def _local(
    x: jax.Array,
    valid: jax.Array,
    parameters: ExpertParameters,
    *,
    activation: Callable[..., jax.Array],
    spread: str | None,
) -> jax.Array:
    """One device's rows of the batch, its experts, its slice of F."""
    logits = router_logits(x, parameters.router)
    gate = jnp.exp(logits.max(-1) - jax.nn.logsumexp(logits, axis=-1))
    experts = logits.shape[-1]
    expert = jnp.where(valid, jnp.argmax(logits, axis=-1), experts).reshape(-1)
    tokens = x.reshape(-1, x.shape[-1])
    if spread:  # each device has few tokens: all of them go to all experts
        tokens, expert = (lax.all_gather(a, spread, tiled=True) for a in (tokens, expert))
        here, first = parameters.wo.shape[0], lax.axis_index(spread) * parameters.wo.shape[0]
        mine = (expert >= first) & (expert < first + here)
        y = _experts(tokens, jnp.where(mine, expert - first, here), parameters, activation)
        y = lax.psum_scatter(y, spread, tiled=True)
    else:
        y = _experts(tokens, expert, parameters, activation)
    y = lax.psum(y, MODEL).reshape(x.shape)
    return (y.astype(jnp.float32) * gate[..., None]).astype(x.dtype)


def _experts(
    tokens: jax.Array,
    expert: jax.Array,
    parameters: ExpertParameters,
    activation: Callable[..., jax.Array],
) -> jax.Array:
    """[T, D] -> [T, D], each token through its expert; 0 for those that have none here."""
    count, experts = len(tokens), parameters.wo.shape[0]
    # By the experts of all devices: those here get their share of the tokens alone.
    rows = rows_of_a_block(count, parameters.router.shape[-1])
    order, first_block, first_row = blocks_of(expert, experts, rows)
    # A block's last rows may be the next expert's tokens, whose own block comes later and writes
    # over what this one wrote there; after the last token there is room for a whole block.
    sorted_tokens = jnp.pad(tokens[order], ((0, rows), (0, 0)))

    def compute(block: jax.Array, results: jax.Array) -> jax.Array:
        e = jnp.searchsorted(first_block, block, side="right") - 1
        row = first_row[e] + (block - first_block[e]) * rows
        x = lax.dynamic_slice_in_dim(sorted_tokens, row, rows)
        wi, wo = jax.tree.map(
            lambda w: lax.dynamic_index_in_dim(w, e, keepdims=False),
            (parameters.wi, parameters.wo),
        )
        y = activation(*[x @ w for w in wi]) @ wo
        return lax.dynamic_update_slice_in_dim(results, y, row, axis=0)

    results = lax.fori_loop(0, first_block[-1], compute, jnp.zeros_like(sorted_tokens))
    place: Any = jnp.zeros(count, jnp.int32).at[order].set(jnp.arange(count, dtype=jnp.int32))
    return jnp.where((expert < experts)[:, None], results[place], 0)
