"""The routing rule: each token's expert, its gate and its slot, and the router's auxiliary losses.

The shape letters are those of `switch_jax.moe`. Nothing here depends on a module or a config.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.kernels.routing_kernel import route, route_gradient
from switch_jax.moe.router import round_to
from switch_jax.partitioning.mesh import tpu_generation


class Assignment(NamedTuple):
    """Top-1 routing of every group, and what the losses and statistics need from the router.

    Attributes:
      expert_index: [G, S] int32, the chosen expert of each token (ties go to the lowest index).
        Dropped tokens and padding have one too.
      gate: [G, S] float32, the chosen expert's probability, not renormalised (Eq. 2); 0 where the
        token is dropped or padding.
      position_in_expert: [G, S] int32, the slot that the token takes in its expert; C where it is
        dropped or padding.
      token_index: [G, E, C] int32, the token in each slot; S where the slot is empty. The inverse
        of `expert_index` and `position_in_expert`.
      log_normalizer: [G, S] float32, logsumexp of the logits.
      entropy: [G, S] float32, of the router's distribution, in nats.
      importance: [G, E] float32, the router's probabilities summed over real tokens.
      load: [G, E] float32, the number of real tokens that chose the expert, dropped ones included.
    """

    expert_index: jax.Array
    gate: jax.Array
    position_in_expert: jax.Array
    token_index: jax.Array
    log_normalizer: jax.Array
    entropy: jax.Array
    importance: jax.Array
    load: jax.Array


def assign(router_logits: jax.Array, capacity: int, valid: jax.Array | None = None) -> Assignment:
    """Gives each token its most probable expert, and a slot there while slots last (section 2.2).

    Within a group, tokens take an expert's slots in token order. So in a decoder, no token affects
    those before it. A token that finds its expert full is dropped. Padding takes no slot. No
    [S, E, C] mask is built, and on a TPU there is no scalar gather or scatter either.

    Args:
      router_logits: [G, S, E] float32; or bfloat16, see `assign_by`.
      capacity: C, the slots of one expert in one group.
      valid: [G, S] bool, False on padding; None where there is no padding.

    Returns:
      An `Assignment`. `gate`, `log_normalizer` and `importance` are differentiable.
    """
    if valid is None:
        valid = jnp.ones(router_logits.shape[:2], bool)  # [G, S]
    if router_logits.dtype != jnp.float32:
        return assign_by(router_logits.astype(jnp.float32), router_logits, capacity, valid)
    return _assign(router_logits, valid, capacity)


def assign_by(
    scores: jax.Array, router_logits: jax.Array, capacity: int, valid: jax.Array | None = None
) -> Assignment:
    """As `assign`, but each token's expert is that of the highest score, whatever its probability.

    If the logits are bfloat16, the softmax is too (Table 2): what each of its steps gives is
    rounded to bfloat16, and so is each gradient. Counts of tokens are exact in any case.

    Args:
      scores: [G, S, E] float32, constants to the gradient.
      router_logits: [G, S, E] float32 or bfloat16, from which gate, losses and statistics are
        computed.
      capacity: C.
      valid: [G, S] bool, False on padding; None where there is no padding.

    Returns:
      An `Assignment`; differentiable as that of `assign`.
    """
    chosen = assign(lax.stop_gradient(scores), capacity, valid)
    rounded = functools.partial(round_to, router_logits.dtype)
    router_logits = router_logits.astype(jnp.float32)  # [G, S, E]
    log_normalizer = rounded(jax.nn.logsumexp(router_logits, axis=-1))  # [G, S]
    log_probs = rounded(router_logits - log_normalizer[..., None])  # [G, S, E]
    router_probs = rounded(jnp.exp(log_probs))  # [G, S, E]
    is_chosen = chosen.expert_index[..., None] == jnp.arange(router_logits.shape[-1])  # [G, S, E]
    is_kept = chosen.position_in_expert < capacity  # [G, S]
    gate = jnp.sum(jnp.where(is_chosen & is_kept[..., None], router_probs, 0.0), axis=-1)  # [G, S]
    real_probs = router_probs if valid is None else router_probs * valid[..., None]  # [G, S, E]
    return chosen._replace(
        gate=gate,
        log_normalizer=log_normalizer,
        entropy=rounded(-jnp.sum(router_probs * log_probs, axis=-1)),  # [G, S]
        importance=rounded(jnp.sum(real_probs, axis=1)),  # [G, E]
    )


def _has_kernels() -> bool:
    return tpu_generation() >= 4  # up to v3, kernels cannot multiply bfloat16


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _assign(router_logits: jax.Array, valid: jax.Array, capacity: int) -> Assignment:
    if _has_kernels():
        return Assignment(*route(router_logits, valid, capacity))
    return _assign_by_sorting(router_logits, valid, capacity)


def _assign_fwd(router_logits: jax.Array, valid: jax.Array, capacity: int):
    a = _assign(router_logits, valid, capacity)
    return a, (router_logits, valid, a.expert_index, a.gate, a.log_normalizer)


def _assign_bwd(capacity: int, residuals, cotangent: Assignment):
    """By hand: autodiff would make several passes over [S, E], and split the gate among ties."""
    del capacity
    router_logits, valid, expert_index, gate, log_normalizer = residuals
    gradient = route_gradient if _has_kernels() else _gradient
    logits_grad = gradient(
        router_logits,
        expert_index,
        log_normalizer,
        cotangent.gate * gate,  # 0 where the token was dropped
        cotangent.log_normalizer,
        cotangent.importance,
        valid,
    )
    return logits_grad, None


def _gradient(
    router_logits,
    expert_index,
    log_normalizer,
    gate_grad,
    log_normalizer_grad,
    importance_grad,
    valid,
):
    """The same as `route_gradient`."""
    router_probs = jnp.exp(router_logits - log_normalizer[..., None])  # [G, S, E]
    probs_grad = jnp.where(valid[..., None], importance_grad[:, None], 0.0)  # [G, S, E]
    mean = jnp.sum(router_probs * probs_grad, axis=-1)  # [G, S]
    logits_grad = router_probs * (
        probs_grad + (log_normalizer_grad - gate_grad - mean)[..., None]
    )  # [G, S, E]
    is_chosen = expert_index[..., None] == jnp.arange(router_logits.shape[-1])  # [G, S, E]
    return logits_grad + jnp.where(is_chosen, gate_grad[..., None], 0.0)  # [G, S, E]


_assign.defvjp(_assign_fwd, _assign_bwd)


def _assign_by_sorting(router_logits: jax.Array, valid: jax.Array, capacity: int) -> Assignment:
    """`assign` by two sorts of S integers for each group; on a TPU, `route` does the same."""
    groups, tokens, experts = router_logits.shape
    expert_index = jnp.argmax(router_logits, axis=-1).astype(jnp.int32)  # [G, S]
    # Padding sorts behind the last expert.
    sort_key = jnp.where(valid, expert_index, experts)  # [G, S]

    # A token's position in its expert is its rank among the tokens of that expert. The sort is
    # stable: tokens of one expert stay in token order.
    iota = lax.broadcasted_iota(jnp.int32, (groups, tokens), 1)  # [G, S]
    sorted_key, order = lax.sort((sort_key, iota), dimension=1, num_keys=1, is_stable=True)
    previous = jnp.pad(sorted_key, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]  # [G, S]
    first_of_expert = jnp.where(sorted_key != previous, iota, 0)  # [G, S]
    sorted_rank = iota - lax.cummax(first_of_expert, axis=1)  # [G, S]
    # Sorting by the token index undoes the first sort without a gather.
    _, rank = lax.sort((order, sorted_rank), dimension=1, num_keys=1, is_stable=False)  # [G, S]
    is_kept = (rank < capacity) & valid  # [G, S]

    # The inverse map: the tokens of an expert are consecutive in `order`, from `start` on.
    is_chosen = sort_key[..., None] == jnp.arange(experts)  # [G, S, E]
    load = jnp.sum(is_chosen, axis=1, dtype=jnp.int32)  # [G, E]
    start = jnp.cumsum(load, axis=1) - load  # [G, E]
    slot = jnp.arange(capacity, dtype=jnp.int32)  # [C]
    is_filled = slot < load[..., None]  # [G, E, C]
    source = jnp.where(is_filled, start[..., None] + slot, tokens)  # [G, E, C]
    take = jax.vmap(lambda o, s: o.at[s].get(mode="fill", fill_value=tokens))
    token_index = take(order, source)  # [G, E, C]

    # The softmax. The chosen expert has the highest logit, so its probability is 1 / total.
    highest = jnp.max(router_logits, axis=-1)  # [G, S]
    shifted = router_logits - highest[..., None]  # [G, S, E]
    total = jnp.sum(jnp.exp(shifted), axis=-1)  # [G, S]
    router_probs = jnp.exp(shifted) / total[..., None]  # [G, S, E]
    return Assignment(
        expert_index=expert_index,
        gate=jnp.where(is_kept, 1 / total, 0.0),  # [G, S]
        position_in_expert=jnp.where(is_kept, rank, capacity),  # [G, S]
        token_index=token_index,
        log_normalizer=highest + jnp.log(total),  # [G, S]
        entropy=jnp.log(total) - jnp.sum(router_probs * shifted, axis=-1),  # [G, S]
        importance=jnp.sum(jnp.where(valid[..., None], router_probs, 0.0), axis=1),  # [G, E]
        load=load.astype(jnp.float32),  # [G, E]
    )
