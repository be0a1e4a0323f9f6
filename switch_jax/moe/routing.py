"""The routing rule: each token's experts, their gates and slots, and what the losses need.

The shape letters are those of `switch_jax.moe`; k experts are chosen for each token. Nothing here
depends on a module or a config.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.kernels.routing_kernel import route, route_gradient
from switch_jax.moe.choices import choice_gates
from switch_jax.moe.router import round_to, router_probabilities
from switch_jax.partitioning.mesh import has_kernels, platform


class Assignment(NamedTuple):
    """The routing of every group, and what the losses and statistics need from the router.

    Shapes are those of `assign`, with one expert a token. `assign_choices` gives `expert_index`,
    `gate` and `position_in_expert` an axis of choices, [G, k, S]; choice c of token s, both counted
    from 0, then has the number c * S + s. `by_choice` takes both forms.

    Attributes:
      expert_index: [G, S] int32, the chosen expert of each token (ties go to the lowest index).
        Dropped tokens and padding have one too.
      gate: [G, S] float32, what multiplies the expert's output; 0 where the token has no slot or is
        padding. With one expert it is the expert's probability, not renormalised (Eq. 2).
      position_in_expert: [G, S] int32, the slot that the token takes in its expert; C where it has
        none or is padding.
      token_index: [G, E, C] int32, the token in each slot, or the number of its choice; S where the
        slot is empty, with an axis of choices k * S. The inverse of `expert_index` and
        `position_in_expert`.
      log_normalizer: [G, S] float32, logsumexp of the logits.
      entropy: [G, S] float32, of the router's distribution, in nats.
      importance: [G, E] float32, the router's probabilities summed over real tokens.
      load: [G, E] float32, the number of real tokens whose first choice is the expert, dropped ones
        included.
    """

    expert_index: jax.Array
    gate: jax.Array
    position_in_expert: jax.Array
    token_index: jax.Array
    log_normalizer: jax.Array
    entropy: jax.Array
    importance: jax.Array
    load: jax.Array


def by_choice(array: jax.Array) -> tuple[jax.Array, ...]:
    """[G, S] or [G, k, S] -> an array [G, S] for each choice."""
    return (array,) if array.ndim == 2 else tuple(array[:, c] for c in range(array.shape[1]))


def assign(router_logits: jax.Array, capacity: int, valid: jax.Array | None = None) -> Assignment:
    """Gives each token its most probable expert, and a slot there while slots last (section 2.2).

    Within a group, tokens take an expert's slots in token order. So in a decoder, no token affects
    those before it. A token that finds its expert full is dropped. Padding takes no slot. No
    [S, E, C] mask is built, and on a TPU there is no scalar gather or scatter either.

    Args:
      router_logits: [G, S, E] float32.
      capacity: C, the slots of one expert in one group.
      valid: [G, S] bool, False on padding; None where there is no padding.

    Returns:
      An `Assignment`. `gate`, `log_normalizer` and `importance` are differentiable; the gradient of
      the other fields is 0.
    """
    if valid is None:
        valid = jnp.ones(router_logits.shape[:2], bool)  # [G, S]
    return _assign(router_logits, valid, capacity)


def assign_choices(
    choices: jax.Array,
    router_logits: jax.Array,
    capacity: int,
    valid: jax.Array,
    least_gate: jax.Array | None = None,
) -> Assignment:
    """Gives each token a slot in each of k given experts, while slots last.

    All first choices take slots before all second ones, and so on; among equal choices the order is
    that of the tokens. So with k > 1 a token's later choices depend on the tokens after it.

    If the logits are bfloat16, the softmax is too (Table 2): what each of its steps gives is
    rounded to bfloat16, and so is each gradient. Counts of tokens are exact in any case.

    Args:
      choices: [G, k, S] int32, different experts for each token, the first choice first; E = none.
      router_logits: [G, S, E] float32 or bfloat16, from which gates, losses and statistics are
        computed.
      capacity: C.
      valid: [G, S] bool, False on padding.
      least_gate: [G, k, S] float32; a choice takes a slot if its gate is above it. None = all do.

    Returns:
      An `Assignment` with an axis of choices; gates are those of `choice_gates`. Differentiable as
      that of `assign`.
    """
    groups = choices.shape[0]
    experts = router_logits.shape[-1]
    # [G, S], [G, S, E], [G, S, E]
    log_normalizer, log_probs, router_probs = router_probabilities(router_logits)
    rounded = functools.partial(round_to, router_logits.dtype)
    gate = rounded(choice_gates(router_probs, choices))  # [G, k, S]

    is_wanted = jnp.broadcast_to(valid[:, None], choices.shape)  # [G, k, S]
    if least_gate is not None:
        is_wanted &= gate > least_gate  # [G, k, S]
    expert_of_choice = jnp.where(is_wanted, choices, experts)  # [G, k, S]
    position, token_index, _ = take_slots(
        expert_of_choice.reshape(groups, -1), experts, capacity
    )  # [G, k * S], [G, E, C]
    position = position.reshape(choices.shape)  # [G, k, S]
    real_probs = router_probs * valid[..., None]  # [G, S, E]
    return Assignment(
        expert_index=choices,
        gate=jnp.where(position < capacity, gate, 0.0),  # [G, k, S]
        position_in_expert=position,
        token_index=token_index,
        log_normalizer=log_normalizer,
        entropy=lax.stop_gradient(rounded(-jnp.sum(router_probs * log_probs, axis=-1))),  # [G, S]
        importance=rounded(jnp.sum(real_probs, axis=1)),  # [G, E]
        load=choice_load(choices[:, 0], experts, valid),  # [G, E]
    )


def choice_load(expert_index: jax.Array, experts: int, valid: jax.Array) -> jax.Array:
    """How many real tokens choose each expert: [G, S], [G, S] -> [G, E] float32."""
    is_chosen = expert_index[..., None] == jnp.arange(experts)  # [G, S, E]
    return jnp.sum(is_chosen & valid[..., None], axis=1, dtype=jnp.float32)  # [G, E]


def take_slots(
    expert_index: jax.Array, experts: int, capacity: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Hands out the slots of each expert in the order of those who choose it.

    Args:
      expert_index: [G, T] int32, the expert that each of T choices wants; E = none.
      experts: E.
      capacity: C.

    Returns:
      [G, T] int32, the slot of each, C where it has none; [G, E, C] int32, who has the slot, T
      where nobody does; and [G, E] int32, how many want the expert.
    """
    groups, number = expert_index.shape
    # A position in an expert is the rank among those that want it. The sort is stable: they stay in
    # order.
    iota = lax.broadcasted_iota(jnp.int32, (groups, number), 1)  # [G, T]
    sorted_index, order = _sorted_by_expert(expert_index, iota, experts)  # [G, T], [G, T]
    previous = jnp.pad(sorted_index, ((0, 0), (1, 0)), constant_values=-1)[:, :-1]  # [G, T]
    first_of_expert = jnp.where(sorted_index != previous, iota, 0)  # [G, T]
    sorted_rank = iota - lax.cummax(first_of_expert, axis=1)  # [G, T]
    rank = _in_order(order, sorted_rank)  # [G, T]
    position = jnp.where((rank < capacity) & (expert_index < experts), rank, capacity)  # [G, T]

    # The inverse map: those of an expert are consecutive in `order`, from `start` on.
    is_chosen = expert_index[..., None] == jnp.arange(experts)  # [G, T, E]
    load = jnp.sum(is_chosen, axis=1, dtype=jnp.int32)  # [G, E]
    start = jnp.cumsum(load, axis=1) - load  # [G, E]
    slot = jnp.arange(capacity, dtype=jnp.int32)  # [C]
    is_filled = slot < load[..., None]  # [G, E, C]
    source = jnp.where(is_filled, start[..., None] + slot, number)  # [G, E, C]
    take = jax.vmap(lambda o, s: o.at[s].get(mode="fill", fill_value=number))
    return position, take(order, source), load


def _sorted_by_expert(
    expert_index: jax.Array, iota: jax.Array, experts: int
) -> tuple[jax.Array, jax.Array]:
    """[G, T], [G, T] -> the same, sorted by the experts; among equal ones in their order."""
    number = iota.shape[1]
    if platform() == "cpu" and (experts + 1) * number < 2**31:
        # A CPU sorts single numbers three times faster than pairs.
        both = lax.sort(expert_index * number + iota, dimension=1, is_stable=False)  # [G, T]
        return both // number, both % number
    expert_index, iota = lax.sort((expert_index, iota), dimension=1, num_keys=1, is_stable=True)
    return expert_index, iota


def _in_order(order: jax.Array, values: jax.Array) -> jax.Array:
    """[G, T] values, of which the i-th belongs at `order[i]`, where they belong."""
    if platform() == "cpu":
        put = jax.vmap(lambda o, v: jnp.zeros_like(v).at[o].set(v, unique_indices=True))
        return put(order, values)
    # On a TPU a scatter costs more than a sort.
    return lax.sort((order, values), dimension=1, num_keys=1, is_stable=False)[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _assign(router_logits: jax.Array, valid: jax.Array, capacity: int) -> Assignment:
    if has_kernels():
        return Assignment(*route(router_logits, valid, capacity))
    return _assign_by_sorting(router_logits, valid, capacity)


def _assign_fwd(router_logits: jax.Array, valid: jax.Array, capacity: int):
    a = _assign(router_logits, valid, capacity)
    return a, (router_logits, valid, a.expert_index, a.gate, a.log_normalizer)


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
    """The gradient of the logits, as `route_gradient` computes it."""
    router_probs = jnp.exp(router_logits - log_normalizer[..., None])  # [G, S, E]
    probs_grad = jnp.where(valid[..., None], importance_grad[:, None], 0.0)  # [G, S, E]
    mean = _row_sums(router_probs, probs_grad)  # [G, S]
    logits_grad = router_probs * (
        probs_grad + (log_normalizer_grad - gate_grad - mean)[..., None]
    )  # [G, S, E]
    is_chosen = expert_index[..., None] == jnp.arange(router_logits.shape[-1])  # [G, S, E]
    return logits_grad + jnp.where(is_chosen, gate_grad[..., None], 0.0)  # [G, S, E]


_assign.defvjp(_assign_fwd, _assign_bwd)


def _row_sums(a: jax.Array, b: jax.Array) -> jax.Array:
    """[G, S, E], [G, S, E] -> the sums of their products over E; as a sum a CPU takes four times
    longer."""
    return jnp.einsum("gse,gse->gs", a, b, precision=lax.Precision.HIGHEST)  # [G, S]


def _assign_by_sorting(router_logits: jax.Array, valid: jax.Array, capacity: int) -> Assignment:
    """`assign` by sorting S integers for each group; on a TPU, `route` does the same."""
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
    return Assignment(
        expert_index=expert_index,
        gate=jnp.where(position < capacity, 1 / total, 0.0),  # [G, S]
        position_in_expert=position,
        token_index=token_index,
        log_normalizer=highest + jnp.log(total),  # [G, S]
        entropy=jnp.log(total) - _row_sums(router_probs, shifted),  # [G, S]
        importance=jnp.sum(jnp.where(valid[..., None], router_probs, 0.0), axis=1),  # [G, E]
        load=load.astype(jnp.float32),  # [G, E]
    )
