"""The losses of a router: load balancing (Eq. 4) and z-loss; and the update of its bias."""

import jax
import jax.numpy as jnp
from jax import lax


def load_balance_loss(importance: jax.Array, load: jax.Array) -> jax.Array:
    """E * sum_i f_i P_i (Eq. 4 to 6, without alpha): 1.0 at balance, E when one expert has it all.

    f_i is the fraction of a group's tokens whose first choice is expert i, counted before any token
    is dropped; P_i is the group's mean probability of expert i. Padding counts in neither. Groups
    are averaged in proportion to their real tokens, so that the loss of a batch is the
    token-weighted mean of the losses of its parts, however it is split. 0 where no token is real.

    Args:
      importance: [G, E] float32, P times the group's real tokens; the gradient flows through it.
      load: [G, E] float32, f times the group's real tokens; it has no gradient.
    """
    load = lax.stop_gradient(load)
    real_tokens = load.sum(-1)  # [G]
    num_experts = load.shape[-1]
    # load * importance holds the group's real tokens twice. Divided by them once, this is the loss
    # of each group times its real tokens.
    weighted = num_experts * jnp.sum(load * importance, -1) / jnp.maximum(real_tokens, 1.0)  # [G]
    return weighted.sum() / jnp.maximum(real_tokens.sum(), 1.0)


def with_bias_gradient(loss: jax.Array, router_bias: jax.Array, excess: jax.Array) -> jax.Array:
    """`loss`, with another gradient: `excess` by the router's bias, and 0 by everything else.

    So the biases get their update (Wang et al. 2024, arXiv 2408.15664) where each parameter does,
    from gradients that are summed over microbatches and devices. `excess`, [E] float32, is this
    device's part of the fraction of the batch's choices that are the expert, minus 1 / E.
    """
    by_bias = jnp.sum(router_bias * lax.stop_gradient(excess))
    return lax.stop_gradient(loss) + by_bias - lax.stop_gradient(by_bias)


def router_z_loss(log_normalizer: jax.Array, valid: jax.Array) -> jax.Array:
    """Mean over real tokens of logsumexp(logits)^2 (ST-MoE, Eq. 5): keeps router logits small.

    `log_normalizer`, [G, S] float32, is logsumexp of the logits; `valid`, [G, S] bool, is False on
    padding. 0 where no token is real.
    """
    weight = valid.astype(jnp.float32)  # [G, S]
    return jnp.sum(log_normalizer**2 * weight) / jnp.maximum(weight.sum(), 1.0)
