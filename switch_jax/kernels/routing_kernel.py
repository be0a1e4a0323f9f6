"""Top-1 routing on a TPU: one kernel from logits to slots and tokens, and one for its gradient.

The first reads the logits once, with tokens along the lanes. A token's rank among those of its
expert is a product of the one-hot choices with a triangle of ones, and the map from slots to tokens
a product of two one-hot factors of the slot's number. Both are exact in bfloat16: the factors are
0, 1 and integers up to 255. Sorting would take ten small programs.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from switch_jax.kernels.tiles import LANES

BLOCK = 256  # tokens in a step of the grid


def route(
    logits: jax.Array, valid: jax.Array, capacity: int, *, interpret: bool = False
) -> tuple[jax.Array, ...]:
    """Top-1 routing of each group; see `switch_jax.moe.top_1.assign`.

    `logits` [G, S, E] float32, `valid` [G, S] bool and the capacity C give the arrays of a
    `switch_jax.moe.Assignment` of one choice, in order and without its axis.
    """
    groups, tokens, experts = logits.shape
    slots = experts * capacity
    blocks = pl.cdiv(tokens, BLOCK)
    # A token's number, counted from 1, is cut into digits that bfloat16 holds exactly.
    digits = pl.cdiv(tokens.bit_length(), 8)
    varies = jax.typeof(logits).manual_axis_type

    def output(shape: tuple[int, ...], dtype) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((groups, *shape), dtype, manual_axis_type=varies)

    def whole(*shape: int) -> pl.BlockSpec:
        return pl.BlockSpec((1, *shape), lambda group, block: (group, 0, 0))

    per_token = pl.BlockSpec((1, 1, BLOCK), lambda group, block: (group, 0, block))
    map_rows = pl.cdiv(slots, LANES)
    expert, gate, slot, token, log_normalizer, entropy, highest, importance, load = pl.pallas_call(
        functools.partial(_kernel, tokens=tokens, capacity=capacity, blocks=blocks),
        grid=(groups, blocks),
        in_specs=[
            pl.BlockSpec((1, BLOCK, experts), lambda group, block: (group, block, 0)),
            per_token,
        ],
        out_specs=[
            *(per_token, per_token, per_token, whole(map_rows, LANES)),
            *(per_token, per_token, per_token, whole(experts, 1), whole(experts, 1)),
        ],
        out_shape=[
            output((1, tokens), jnp.int32),
            output((1, tokens), jnp.float32),
            output((1, tokens), jnp.int32),
            output((map_rows, LANES), jnp.int32),
            output((1, tokens), jnp.float32),
            output((1, tokens), jnp.float32),
            output((1, tokens), jnp.float32),
            output((experts, 1), jnp.float32),
            output((experts, 1), jnp.float32),
        ],
        scratch_shapes=[pltpu.VMEM((digits, map_rows, LANES), jnp.float32)],
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        interpret=interpret,
        name="route",
    )(logits, valid.astype(jnp.int32)[:, None])
    token = token.reshape(groups, -1)[:, :slots].reshape(groups, experts, capacity)
    return (
        *(expert[:, 0], gate[:, 0], slot[:, 0], token, log_normalizer[:, 0], entropy[:, 0]),
        *(highest[:, 0], importance[..., 0], load[..., 0]),
    )


def _kernel(
    logits_ref, valid_ref,
    expert_ref, gate_ref, slot_ref, token_ref, log_normalizer_ref, entropy_ref, highest_ref,
    importance_ref, load_ref, found,
    *, tokens: int, capacity: int, blocks: int,
) -> None:  # fmt: skip
    """One block of a group's tokens; `load_ref` counts the tokens that each expert has so far."""
    block = pl.program_id(1)

    @pl.when(block == 0)
    def _():
        importance_ref[...] = jnp.zeros_like(importance_ref)
        load_ref[...] = jnp.zeros_like(load_ref)
        found[...] = jnp.zeros_like(found)

    token = block * BLOCK + lax.broadcasted_iota(jnp.int32, (1, BLOCK), 1)  # [1, BLOCK]
    inside = token < tokens  # [1, BLOCK]; the last block may reach past the group's end
    valid = (valid_ref[0] != 0) & inside  # [1, BLOCK]
    logits = jnp.where(inside, logits_ref[0].T, 0.0)  # [E, BLOCK]
    experts = logits.shape[0]

    highest = jnp.max(logits, axis=0, keepdims=True)  # [1, BLOCK]
    ids = lax.broadcasted_iota(jnp.int32, (experts, BLOCK), 0)  # [E, BLOCK]
    expert = jnp.min(
        jnp.where(logits == highest, ids, experts - 1), axis=0, keepdims=True
    )  # [1, BLOCK]
    shifted = logits - highest  # [E, BLOCK]
    exp = jnp.exp(shifted)  # [E, BLOCK]
    total = jnp.sum(exp, axis=0, keepdims=True)  # [1, BLOCK]
    gate = 1 / total  # [1, BLOCK]
    expert_ref[0] = expert
    highest_ref[0] = highest
    log_normalizer_ref[0] = highest + jnp.log(total)
    entropy_ref[0] = jnp.log(total) - jnp.sum(exp * shifted, axis=0, keepdims=True) * gate
    importance_ref[0] += jnp.sum(exp * jnp.where(valid, gate, 0.0), axis=1, keepdims=True)

    chosen = jnp.where((ids == expert) & valid, 1.0, 0.0)  # [E, BLOCK]
    here = jnp.dot(
        chosen.astype(jnp.bfloat16), _earlier(BLOCK), preferred_element_type=jnp.float32
    )  # [E, BLOCK]
    rank = jnp.sum(chosen * (here + load_ref[0]), axis=0, keepdims=True)  # [1, BLOCK]
    rank = rank.astype(jnp.int32)  # [1, BLOCK]
    load_ref[0] += jnp.sum(chosen, axis=1, keepdims=True)
    kept = valid & (rank < capacity)  # [1, BLOCK]
    slot_ref[0] = jnp.where(kept, rank, capacity)
    gate_ref[0] = jnp.where(kept, gate, 0.0)

    number = jnp.where(kept, expert * capacity + rank, -1)  # [1, BLOCK], of the slot
    row = _one_hot(number // LANES, found.shape[1])  # [rows of `found`, BLOCK]
    lane = number % LANES == lax.broadcasted_iota(jnp.int32, (LANES, BLOCK), 0)  # [LANES, BLOCK]
    for i in range(found.shape[0]):
        digit = ((token + 1) >> 8 * i) & 255
        digit = jnp.where(lane, digit.astype(jnp.float32), 0.0)  # [LANES, BLOCK]
        digit = digit.astype(jnp.bfloat16)  # [LANES, BLOCK]; 255 and less are exact
        found[i] += lax.dot_general(
            row, digit, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )

    @pl.when(block == blocks - 1)
    def _():
        number = sum(found[i].astype(jnp.int32) << 8 * i for i in range(found.shape[0]))
        token_ref[0] = jnp.where(number == 0, tokens, number - 1)


def route_gradient(
    logits: jax.Array,
    expert: jax.Array,
    log_normalizer: jax.Array,
    gate_grad: jax.Array,
    log_normalizer_grad: jax.Array,
    importance_grad: jax.Array,
    valid: jax.Array,
    *,
    interpret: bool = False,
) -> jax.Array:
    """The gradient of the logits of `switch_jax.moe.top_1.assign`: [G, S, E] float32.

    With p the softmax and i the chosen expert: d gate / d logit_j = gate ([j = i] - p_j),
    d log_normalizer / d logit_j = p_j, and d p_e / d logit_j = p_e ([j = e] - p_j), which
    `importance` sums over real tokens.

    Args:
      logits: [G, S, E] float32.
      expert, log_normalizer, valid: [G, S] int32, float32 and bool, as for and from `route`.
      gate_grad: [G, S] float32, the gradient of the gate, times the gate.
      log_normalizer_grad, importance_grad: [G, S] and [G, E] float32.
      interpret: run on any platform, slowly.
    """
    groups, tokens, experts = logits.shape
    per_token = pl.BlockSpec((1, 1, BLOCK), lambda group, block: (group, 0, block))
    matrix = pl.BlockSpec((1, BLOCK, experts), lambda group, block: (group, block, 0))
    column = pl.BlockSpec((1, experts, 1), lambda group, block: (group, 0, 0))
    rows = (expert, log_normalizer, gate_grad, log_normalizer_grad, valid.astype(jnp.float32))
    return pl.pallas_call(
        _gradient_kernel,
        grid=(groups, pl.cdiv(tokens, BLOCK)),
        in_specs=[matrix, *[per_token] * len(rows), column],
        out_specs=matrix,
        out_shape=jax.ShapeDtypeStruct(
            logits.shape, jnp.float32, manual_axis_type=jax.typeof(logits).manual_axis_type
        ),
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "parallel")),
        interpret=interpret,
        name="route_gradient",
    )(logits, *[row[:, None] for row in rows], importance_grad[..., None])


def _gradient_kernel(
    logits_ref, expert_ref, log_normalizer_ref, gate_grad_ref, log_normalizer_grad_ref, valid_ref,
    importance_grad_ref, gradient_ref,
) -> None:  # fmt: skip
    probs = jnp.exp(logits_ref[0].T - log_normalizer_ref[0])  # [E, BLOCK]
    importance = importance_grad_ref[0] * valid_ref[0]  # [E, BLOCK]
    mean = jnp.sum(probs * importance, axis=0, keepdims=True)  # [1, BLOCK]
    gate_grad = gate_grad_ref[0]  # [1, BLOCK]
    chosen = lax.broadcasted_iota(jnp.int32, probs.shape, 0) == expert_ref[0]  # [E, BLOCK]
    gradient = probs * (importance + (log_normalizer_grad_ref[0] - gate_grad - mean))
    gradient_ref[0] = (gradient + jnp.where(chosen, gate_grad, 0.0)).T


def _earlier(size: int) -> jax.Array:
    """[size, size] bfloat16: 1 where the row comes before the column."""
    row = lax.broadcasted_iota(jnp.int32, (size, size), 0)
    column = lax.broadcasted_iota(jnp.int32, (size, size), 1)
    return jnp.where(row < column, 1.0, 0.0).astype(jnp.bfloat16)


def _one_hot(number: jax.Array, size: int) -> jax.Array:
    """[1, n] integers -> [size, n] bfloat16."""
    ids = lax.broadcasted_iota(jnp.int32, (size, number.shape[1]), 0)
    return jnp.where(ids == number, 1.0, 0.0).astype(jnp.bfloat16)
