"""What a layer's router did, over the whole batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from switch_jax.moe.auxiliary_losses import load_balance_loss, router_z_loss, with_bias_gradient
from switch_jax.moe.experts_choose import ChosenTokens
from switch_jax.moe.slots import Assignment, choice_load
from switch_jax.partitioning.collectives import psum
from switch_jax.partitioning.mesh import BATCH


class RouterStatistics(NamedTuple):
    """What a layer's router did, over all real tokens of the batch; float32.

    Attributes:
      load: [E] fraction of tokens whose first choice is the expert, before any is dropped (f,
        Eq. 5).
      load_balance_loss: scalar, 1.0 at balance (Eq. 4 without alpha).
      z_loss: scalar, mean logsumexp^2 of the logits.
      dropped: scalar, fraction of tokens that have no slot in any of their experts.
      entropy: scalar, mean entropy of the router's distribution, in nats.
      several_experts: scalar, fraction of tokens that have slots in two or more experts; None where
        a token has one at most.
      choices: the result of `moe.choose_experts`, where the layer returns it; see
        `Transformer.choose_experts`.
    """

    load: jax.Array
    load_balance_loss: jax.Array
    z_loss: jax.Array
    dropped: jax.Array
    entropy: jax.Array
    several_experts: jax.Array | None = None
    choices: tuple[jax.Array, jax.Array] | None = None


def router_statistics(
    assignment: Assignment | ChosenTokens,
    valid: jax.Array,
    router_bias: jax.Array | None = None,
) -> RouterStatistics:
    """The statistics of the whole batch, from this device's groups, within `jax.shard_map`.

    Args:
      assignment: of this device's groups.
      valid: [G_local, S] bool, False on padding.
      router_bias: [E] float32; where there is one, `load_balance_loss` has the gradient of
        `with_bias_gradient` in place of its own.
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
    if isinstance(a, ChosenTokens) or a.gate.shape[1] > 1:
        several_experts = jnp.sum(jnp.where(valid & (a.num_slots > 1), 1 / all_real_tokens, 0.0))
    of_this_device = RouterStatistics(
        load=load,
        load_balance_loss=balance_loss,
        z_loss=router_z_loss(a.router.log_normalizer, valid) * share,
        dropped=jnp.sum(jnp.where(valid & a.has_no_slot, 1 / all_real_tokens, 0.0)),
        entropy=jnp.sum(jnp.where(valid, a.router.entropy / all_real_tokens, 0.0)),
        several_experts=several_experts,
    )
    return jax.tree.map(lambda statistic: psum(statistic, BATCH), of_this_device)
