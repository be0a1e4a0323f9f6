"""Cross-entropy, and what is added to it."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class TokenSums(NamedTuple):
    """Sums over real target tokens, float32 scalars: -log p(target) in nats, logsumexp^2 as `z`.

    `correct` are those that the model ranks first, alone or with others.
    """

    cross_entropy: Any
    z: Any
    correct: Any
    tokens: Any


def token_sums(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> TokenSums:
    """Sums over the real target tokens: logits [B, L, V] float32, targets [B, L] int32.

    `weights`, [B, L] float32, are 1 on real tokens and 0 on padding.
    """
    z = jax.nn.logsumexp(logits, axis=-1)  # [B, L]
    # A masked sum, not a look-up, because the vocabulary may be split over the mesh.
    is_target = targets[..., None] == jnp.arange(logits.shape[-1])  # [B, L, V]
    target_logit = jnp.sum(jnp.where(is_target, logits, 0.0), axis=-1)  # [B, L]
    # logsumexp has computed the maximum; an argmax would be one more pass over [B, L, V].
    correct = target_logit == logits.max(-1)  # [B, L]
    return TokenSums(
        cross_entropy=jnp.sum((z - target_logit) * weights),
        z=jnp.sum(jnp.square(z) * weights),
        correct=jnp.sum(correct * weights),
        tokens=weights.sum(),
    )


def soft_cross_entropy(
    logits: jax.Array, teacher_logits: jax.Array, weights: jax.Array, temperature: float
) -> jax.Array:
    """Sum over the real target tokens of -sum_v softmax(t / T)_v log softmax(s / T)_v, nats.

    s and t are the logits and the teacher's, [B, L, V] float32; `weights` as for `token_sums`. The
    caller multiplies by T^2, as Mesh TensorFlow's StudentTeacher does: so the gradients are about
    as large at every temperature (Hinton et al. 2015, section 2.1).
    """
    logits = logits / temperature  # [B, L, V]
    teacher = jax.nn.softmax(teacher_logits / temperature)  # [B, L, V]
    expected_logit = jnp.sum(teacher * logits, axis=-1)  # [B, L]
    return jnp.sum((jax.nn.logsumexp(logits, axis=-1) - expected_logit) * weights)
