"""What a layer's router did, over the whole batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from switch_jax.metrics import ROUTER_STATISTICS
from switch_jax.moe.dispatch import Assignment, ChosenTokens
from switch_jax.moe.joins import ARRAY_JOINS
from switch_jax.moe.losses import load_balance_loss, router_z_loss, with_bias_gradient
from switch_jax.moe.slots import choice_load
from switch_jax.partitioning.collectives import psum
from switch_jax.partitioning.mesh import BATCH


class RouterStatistics(NamedTuple):
    """What a layer's router did, over all real tokens of the batch; float32.

    `switch_jax.metrics` declares how each is joined, and how records and reports show it.

    Attributes:
      load: [E] fraction of tokens whose first choice is the expert, before any is dropped (f,
        Eq. 5).
      load_balance_loss: scalar, 1.0 at balance (Eq. 4 without alpha).
      z_loss: scalar, mean logsumexp^2 of the logits.
      dropped: scalar, fraction of tokens that have no slot in any of their experts.
      entropy: scalar, mean entropy of the router's distribution, in nats.
      router_logit_max: scalar, the largest logit; [devices] until `join_devices`.
      several_experts: scalar, fraction of tokens that have slots in two or more experts; None where
        a token has one at most.
    """

    load: jax.Array
    load_balance_loss: jax.Array
    z_loss: jax.Array
    dropped: jax.Array
    entropy: jax.Array
    router_logit_max: jax.Array
    several_experts: jax.Array | None = None


class Choices(NamedTuple):
    """The experts of each token, whether or not it gets a slot, the best one first.

    Where experts choose, k is E: those that take the token, and the number E behind the last one.

    Attributes:
      experts: [B, k, L] int32.
      gates: [B, k, L] float32.
    """

    experts: jax.Array
    gates: jax.Array


class RouterOutput(NamedTuple):
    """What a layer returns of its router; the choices are None where nobody asks for them."""

    statistics: RouterStatistics
    choices: Choices | None


def by_join(function: Callable[..., Any], *statistics: RouterStatistics) -> RouterStatistics:
    """`function(join, *values)` for each statistic of one or several routers; None stays None.

    `join` is the `ArrayJoin` that the statistic declares.
    """

    def joined(name: str) -> Any:
        values = [getattr(of_router, name) for of_router in statistics]
        if any(value is None for value in values):
            return None
        return function(ARRAY_JOINS[ROUTER_STATISTICS[name].join], *values)

    return RouterStatistics(**{name: joined(name) for name in ROUTER_STATISTICS})


def join_devices(statistics: RouterStatistics) -> RouterStatistics:
    """The statistics of all devices, of N layers: see `ArrayJoin.of_step`."""
    return by_join(lambda join, s: join.of_step(s), statistics)


def statistics_specs() -> RouterStatistics:
    """How devices have what `router_statistics` returns."""
    return by_join(lambda join: join.spec)


def router_statistics(
    assignment: Assignment | ChosenTokens,
    valid: jax.Array,
    router_bias: jax.Array | None = None,
) -> RouterStatistics:
    """The statistics of the whole batch, from this device's groups, within `jax.shard_map`.

    `valid`, [G_local, S] bool, is False on padding. With `router_bias`, [E] float32,
    `load_balance_loss` has the gradient of `with_bias_gradient` in place of its own.
    """
    a = assignment
    real_tokens = valid.sum(dtype=jnp.float32)
    all_real_tokens = jnp.maximum(psum(real_tokens, BATCH), 1.0)
    # Everything is divided before it is summed over devices: a division after the sum would be an
    # operation of its own.
    share = real_tokens / all_real_tokens
    load = jnp.sum(a.load / all_real_tokens, axis=0)  # [E]
    balance_loss = load_balance_loss(a.router.importance, a.load) * share
    if router_bias is not None:
        assert isinstance(a, Assignment)  # there is no bias where experts choose
        choices = jnp.unstack(a.expert_index, axis=1)  # [G_local, S] each
        chosen = a.load + sum(choice_load(e, load.size, valid) for e in choices[1:])  # [G_local, E]
        all_load = jnp.sum(chosen / (len(choices) * all_real_tokens), axis=0)  # [E]
        balance_loss = with_bias_gradient(balance_loss, router_bias, all_load - share / load.size)
    several_experts = None
    if a.most_slots > 1:
        several_experts = jnp.sum(jnp.where(valid & (a.num_slots > 1), 1 / all_real_tokens, 0.0))
    of_this_device = RouterStatistics(
        load=load,
        load_balance_loss=balance_loss,
        z_loss=router_z_loss(a.router.log_normalizer, valid) * share,
        dropped=jnp.sum(jnp.where(valid & a.has_no_slot, 1 / all_real_tokens, 0.0)),
        entropy=jnp.sum(jnp.where(valid, a.router.entropy / all_real_tokens, 0.0)),
        router_logit_max=jnp.max(jnp.where(valid, a.router.highest_logit, -jnp.inf)),
        several_experts=several_experts,
    )
    return by_join(lambda join, s: join.of_device(s), of_this_device)
