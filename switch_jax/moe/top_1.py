"""From logits to slots at once, where each token has its most probable expert (section 2.2).

The default of a Switch Transformer: on a TPU one kernel, elsewhere one sort, and one gradient
written by hand. Nothing here depends on a module or a config.
"""

import functools

import jax
import jax.numpy as jnp

from switch_jax.kernels.routing_kernel import route, route_gradient
from switch_jax.moe.dispatch import Assignment
from switch_jax.moe.router import RouterSums
from switch_jax.moe.slots import take_slots
from switch_jax.partitioning.devices import has_kernels


def assign(router_logits: jax.Array, capacity: int, valid: jax.Array | None = None) -> Assignment:
    """Gives each token its most probable expert, and a slot there while slots last (section 2.2).

    Within a group, tokens take an expert's slots in token order. So in a decoder, no token affects
    those before it. A token that finds its expert full is dropped. Padding takes no slot. No
    [S, E, C] mask is built, and on a TPU there is no scalar gather or scatter either.

    `router_logits` are [G, S, E] float32; `valid`, [G, S] bool, is False on padding, None = none.
    """
    if valid is None:
        valid = jnp.ones(router_logits.shape[:2], bool)  # [G, S]
    a = _assign(router_logits, valid, capacity)
    return a._replace(
        expert_index=a.expert_index[:, None],  # [G, 1, S]
        gate=a.gate[:, None],  # [G, 1, S]
        position_in_expert=a.position_in_expert[:, None],  # [G, 1, S]
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _assign(router_logits: jax.Array, valid: jax.Array, capacity: int) -> Assignment:
    """As `assign`, without the axis of choices."""
    if has_kernels():
        expert, gate, position, token, *sums, load = route(router_logits, valid, capacity)
        return Assignment(expert, gate, position, token, RouterSums(*sums), load)
    return _assign_by_sorting(router_logits, valid, capacity)


def _assign_fwd(router_logits: jax.Array, valid: jax.Array, capacity: int):
    a = _assign(router_logits, valid, capacity)
    return a, (router_logits, valid, a.expert_index, a.gate, a.router.log_normalizer)


def _assign_bwd(capacity: int, residuals, cotangent: Assignment):
    """By hand: autodiff would make several passes over [S, E], and split the gate among ties."""
    del capacity
    router_logits, valid, expert_index, gate, log_normalizer = residuals
    gradient = route_gradient if has_kernels() else _gradient
    logits_grad = gradient(
        router_logits,
        expert_index,
        log_normalizer,
        cotangent.gate * gate,  # 0 where the token was dropped
        cotangent.router.log_normalizer,
        cotangent.router.importance,
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
    """The gradient of the logits, as `route_gradient` computes it."""
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
    """`_assign` by sorting S integers for each group; on a TPU, `route` does the same."""
    experts = router_logits.shape[-1]
    expert_index = jnp.argmax(router_logits, axis=-1).astype(jnp.int32)  # [G, S]
    # Padding sorts behind the last expert.
    position, token_index, load = take_slots(
        jnp.where(valid, expert_index, experts), experts, capacity
    )  # [G, S], [G, E, C], [G, E]

    # The softmax. The chosen expert has the highest logit, so its probability is 1 / total.
    highest = jnp.max(router_logits, axis=-1)  # [G, S]
    shifted = router_logits - highest[..., None]  # [G, S, E]
    exps = jnp.exp(shifted)  # [G, S, E]
    total = jnp.sum(exps, axis=-1)  # [G, S]
    router_probs = exps / total[..., None]  # [G, S, E]
    entropy = jnp.log(total) - jnp.sum(router_probs * shifted, axis=-1)  # [G, S]
    importance = jnp.sum(jnp.where(valid[..., None], router_probs, 0.0), axis=1)  # [G, E]
    return Assignment(
        expert_index=expert_index,
        gate=jnp.where(position < capacity, 1 / total, 0.0),  # [G, S]
        position_in_expert=position,
        token_index=token_index,
        router=RouterSums(highest + jnp.log(total), entropy, highest, importance),
        load=load.astype(jnp.float32),  # [G, E]
    )
