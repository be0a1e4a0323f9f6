"""Cross-entropy, and what is added to it."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from switch_jax.fields import COEFFICIENT, check_fields


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """Coefficients of what is added to the cross-entropy.

    Attributes:
      z_loss: of logsumexp^2 of the output logits (T5: 1e-4).
      load_balance: alpha of Eq. 4, for each Switch layer; the layers are summed.
      router_z: of `moe.router_z_loss` (ST-MoE uses 1e-3; not in the paper, so 0).
    """

    z_loss: float = 1e-4
    load_balance: float = 1e-2
    router_z: float = 0.0

    def __post_init__(self) -> None:
        """Raises FieldError on values that are no coefficients."""
        check_fields(self, z_loss=COEFFICIENT, load_balance=COEFFICIENT, router_z=COEFFICIENT)


class TokenSums(NamedTuple):
    """Sums over target tokens, float32 scalars.

    Attributes:
      cross_entropy: of -log p(target), nats.
      z: of logsumexp^2 of the logits.
      correct: number of tokens that the model ranks first, alone or with others.
      tokens: number of real target tokens.
    """

    cross_entropy: Any
    z: Any
    correct: Any
    tokens: Any


def token_sums(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> TokenSums:
    """Sums over the real target tokens.

    Args:
      logits: [B, L, V] float32.
      targets: [B, L] int32.
      weights: [B, L] float32, 1 on real tokens and 0 on padding.
    """
    z = jax.nn.logsumexp(logits, axis=-1)
    # A masked sum, not a look-up: the vocabulary may be split over the mesh.
    is_target = targets[..., None] == jnp.arange(logits.shape[-1])
    target_logit = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)
    # The maximum is there already; an argmax would be one more pass over [B, L, V].
    correct = target_logit == logits.max(-1)
    return TokenSums(
        cross_entropy=jnp.sum((z - target_logit) * weights),
        z=jnp.sum(jnp.square(z) * weights),
        correct=jnp.sum(correct * weights),
        tokens=weights.sum(),
    )
