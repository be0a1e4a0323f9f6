"""Which expert takes which token: groups, capacity, slots, and the losses that keep experts even.

Shape letters are those of `switch_jax.moe`. Nothing here knows of a module or a config.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from scipy.special import bdtrc

from switch_jax.errors import UserError
from switch_jax.kernels.routing import route, route_gradient
from switch_jax.partitioning.mesh import tpu_generation

TILE_ROWS = 8  # a TPU lays the rows of an array out in tiles of as many


class Assignment(NamedTuple):
    """Top-1 routing of every group, and what the losses and statistics need of the router.

    Attributes:
      expert: [G, S] int32, the chosen expert of each token (ties go to the lowest index). Given for
        dropped and padding tokens too.
      gate: [G, S] float32, the chosen expert's probability, not renormalised (Eq. 2); 0 where the
        token is dropped or padding.
      slot: [G, S] int32, the token's place in its expert's buffer; `C` where dropped or padding.
      token: [G, E, C] int32, the token in each slot; `S` where the slot is empty. The inverse of
        `expert` and `slot`.
      log_normalizer: [G, S] float32, logsumexp of the logits.
      entropy: [G, S] float32, of the router's distribution, in nats.
      importance: [G, E] float32, the probabilities summed over real tokens.
      load: [G, E] float32, the real tokens that chose the expert, dropped ones included.
    """

    expert: jax.Array
    gate: jax.Array
    slot: jax.Array
    token: jax.Array
    log_normalizer: jax.Array
    entropy: jax.Array
    importance: jax.Array
    load: jax.Array


def group_shape(
    batch: int, length: int, group_size: int, *, macro: str = "GROUP_SIZE"
) -> tuple[int, int]:
    """Splits [batch, length] tokens into the fewest equal groups of at most `group_size` tokens.

    A group is a run of whole consecutive rows, or, where a row is longer than `group_size`, an
    equal part of one row. It depends on these three numbers alone, never on the number of devices.

    Args:
      batch: rows.
      length: tokens of a row, padding included.
      group_size: the most tokens of a group.
      macro: what sets `group_size`, for the message.

    Returns:
      (G, S): the number of groups and the tokens in each.

    Raises:
      UserError: `group_size` does not divide a row that is longer than it.
    """
    if length > group_size:
        if length % group_size:
            raise UserError(
                f"{macro} = {group_size} does not fit: it is shorter than a row of {length} "
                f"tokens and does not divide it ({length} % {group_size} = {length % group_size}); "
                f"set {macro} to a divisor of {length}, or to {length} or more"
            )
        return batch * length // group_size, group_size
    rows = max(r for r in range(1, batch + 1) if batch % r == 0 and r * length <= group_size)
    return batch // rows, rows * length


def capacity(
    tokens_per_group: int,
    num_experts: int,
    factor: float,
    *,
    min_capacity: int = 1,
    multiple: int = TILE_ROWS,
) -> int:
    """Slots of one expert in one group (Eq. 3): tokens / experts x capacity factor.

    Rounded up, so that at factor 1.0 perfectly even routing drops nothing whatever the division
    leaves; at least `min_capacity`; at most `tokens_per_group`, since no expert can receive more.
    And up to a multiple of `multiple` where that adds a fifteenth at most: a TPU lays rows out in
    eights, and moving others costs it more than those slots. Equation 3 does not say how to round;
    Mesh TensorFlow rounds down, Flaxformer to the nearest.

    Args:
      tokens_per_group: S, padding included.
      num_experts: E.
      factor: the capacity factor, 1.0 = room for exactly even routing.
      min_capacity: a floor for very small groups.
      multiple: 8 for speed on a TPU; 1 rounds once only, to a whole slot.
    """
    # Slightly less, so that 10 x 1.1 = 11.000000000000002 is 11.
    exact = tokens_per_group * factor / num_experts
    slots = max(min_capacity, math.ceil(exact - 1e-6))
    aligned = -(-slots // multiple) * multiple
    return min(tokens_per_group, aligned if 15 * aligned <= 16 * slots else slots)


def expected_drop(tokens_per_group: int, num_experts: int, slots: int) -> float:
    """The fraction of tokens that find their expert full where routing is even on average.

    Each token of a group picks one of the experts at random, all alike, so the number n that picks
    a given one is binomial(S, 1 / E), and E[max(0, n - C)] x E / S of the tokens are dropped. With
    n P(n) = (S / E) P'(n - 1), P' the distribution for one token fewer, the sum over n > C is two
    tails: P'(n >= C) - (C E / S) P(n > C).

    Args:
      tokens_per_group: S, all of them real tokens.
      num_experts: E.
      slots: C, of one expert in the group, at least 1.
    """
    one_fewer = bdtrc(slots - 1, tokens_per_group - 1, 1 / num_experts)
    tail = bdtrc(slots, tokens_per_group, 1 / num_experts)
    return max(0.0, float(one_fewer - slots * num_experts / tokens_per_group * tail))


def assign(logits: jax.Array, capacity: int, valid: jax.Array | None = None) -> Assignment:
    """Gives each token its most probable expert, and a slot there while there are slots.

    Within a group, tokens take an expert's slots in token order (left to right, so that a decoder
    never sees whether a later token came); a token that finds its expert full is dropped. Padding
    takes no slot. No [S, E, C] mask, and on a TPU no scalar gather or scatter either.

    Args:
      logits: [G, S, E] float32 router logits.
      capacity: C, slots of one expert in one group.
      valid: [G, S] bool, False on padding; None where there is none.

    Returns:
      An `Assignment`. `gate`, `log_normalizer` and `importance` are differentiable.
    """
    return _assign(logits, jnp.ones(logits.shape[:2], bool) if valid is None else valid, capacity)


def _has_kernels() -> bool:
    return tpu_generation() >= 4  # up to v3, kernels cannot multiply bfloat16


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _assign(logits: jax.Array, valid: jax.Array, capacity: int) -> Assignment:
    if _has_kernels():
        return Assignment(*route(logits, valid, capacity))
    return _assign_by_sorting(logits, valid, capacity)


def _assign_fwd(logits: jax.Array, valid: jax.Array, capacity: int):
    a = _assign(logits, valid, capacity)
    return a, (logits, valid, a.expert, a.gate, a.log_normalizer)


def _assign_bwd(capacity: int, residuals, cotangent: Assignment):
    """By hand: autodiff would make several passes over [S, E], and split the gate among ties."""
    del capacity
    logits, valid, expert, gate, log_normalizer = residuals
    by_token = cotangent.gate * gate, cotangent.log_normalizer  # 0 where dropped; all tokens
    gradient = route_gradient if _has_kernels() else _gradient
    return gradient(logits, expert, log_normalizer, *by_token, cotangent.importance, valid), None


def _gradient(logits, expert, log_normalizer, by_gate, by_normalizer, by_importance, valid):
    """As `route_gradient`."""
    probs = jnp.exp(logits - log_normalizer[..., None])
    importance = jnp.where(valid[..., None], by_importance[:, None], 0.0)
    mean = jnp.sum(probs * importance, axis=-1)
    gradient = probs * (importance + (by_normalizer - by_gate - mean)[..., None])
    chosen = expert[..., None] == jnp.arange(logits.shape[-1])
    return gradient + jnp.where(chosen, by_gate[..., None], 0.0)


_assign.defvjp(_assign_fwd, _assign_bwd)


def _assign_by_sorting(logits: jax.Array, valid: jax.Array, capacity: int) -> Assignment:
    """`assign` by two sorts of S integers a group; `route` does the same on a TPU."""
    groups, tokens, experts = logits.shape
    expert = jnp.argmax(logits, axis=-1).astype(jnp.int32)  # [G, S]
    # Padding sorts behind the last expert.
    key = jnp.where(valid, expert, experts)

    iota = lax.broadcasted_iota(jnp.int32, (groups, tokens), 1)
    # Stable: tokens of one expert stay in token order.
    key_sorted, order = lax.sort((key, iota), dimension=1, num_keys=1, is_stable=True)
    previous = jnp.pad(key_sorted, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]
    first_of_expert = jnp.where(key_sorted != previous, iota, 0)
    rank_sorted = iota - lax.cummax(first_of_expert, axis=1)
    # Sorting by the token index undoes the first sort without a gather.
    _, rank = lax.sort((order, rank_sorted), dimension=1, num_keys=1, is_stable=False)
    kept = (rank < capacity) & valid

    load = jnp.sum(key[..., None] == jnp.arange(experts), axis=1, dtype=jnp.int32)  # [G, E]
    start = jnp.cumsum(load, axis=1) - load
    place = jnp.arange(capacity, dtype=jnp.int32)  # [C]
    filled = place < load[..., None]  # [G, E, C]
    source = jnp.where(filled, start[..., None] + place, tokens)
    token = jax.vmap(lambda o, s: o.at[s].get(mode="fill", fill_value=tokens))(order, source)

    peak = jnp.max(logits, axis=-1)
    shifted = logits - peak[..., None]
    total = jnp.sum(jnp.exp(shifted), axis=-1)
    probs = jnp.exp(shifted) / total[..., None]
    return Assignment(
        expert=expert,
        gate=jnp.where(kept, 1 / total, 0.0),
        slot=jnp.where(kept, rank, capacity),
        token=token,
        log_normalizer=peak + jnp.log(total),
        entropy=jnp.log(total) - jnp.sum(probs * shifted, axis=-1),
        importance=jnp.sum(jnp.where(valid[..., None], probs, 0.0), axis=1),
        load=load.astype(jnp.float32),
    )


def load_balance_loss(importance: jax.Array, load: jax.Array) -> jax.Array:
    """E * sum_i f_i P_i (Eq. 4 to 6, without alpha): 1.0 at balance, E when one expert has it all.

    f_i is the fraction of a group's tokens whose argmax is expert i, counted before any is
    dropped; P_i is the group's mean probability of expert i. Padding counts in neither. Groups are
    averaged in proportion to their real tokens, so that the loss of a batch is the token-weighted
    mean of the losses of its parts, however it is split.

    Args:
      importance: [G, E] float32, as in `Assignment`: P times the group's real tokens.
      load: [G, E] float32, f times the group's real tokens.

    Returns:
      A float32 scalar; 0 where no token is real. Gradients flow through `importance` only.
    """
    load = lax.stop_gradient(load)
    real = load.sum(-1)  # [G]
    per_group = load.shape[-1] * jnp.sum(load * importance, -1) / jnp.maximum(real, 1.0)
    return per_group.sum() / jnp.maximum(real.sum(), 1.0)


def router_z_loss(log_normalizer: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean over real tokens of logsumexp(logits)^2 (ST-MoE, Eq. 5): keeps router logits small.

    Args:
      log_normalizer: [G, S] float32, logsumexp of the router's logits.
      valid: [G, S] bool, False on padding.

    Returns:
      A float32 scalar; 0 where no token is real.
    """
    weight = valid.astype(jnp.float32)
    return jnp.sum(log_normalizer**2 * weight) / jnp.maximum(weight.sum(), 1.0)
