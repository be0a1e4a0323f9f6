"""Muon: momentum, orthogonalised, for matrices (Jordan et al. 2024)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

_BETA, _STEPS, _EPSILON = 0.95, 5, 1e-8
_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # of Jordan's iteration; singular values end near 1
# The RMS that updates of AdamW have, on average (Liu et al. 2025, arXiv 2502.16982, section 2.2).
# With it, matrices take the learning rate and the weight decay that suit AdamW.
_RMS = 0.2


class MuonState(NamedTuple):
    """`count`: int32, number of updates done; `mu`: the momentum of each parameter."""

    count: Any
    mu: Any


def scale_by_muon(dtype: str) -> optax.GradientTransformation:
    """Nesterov momentum, orthogonalised, with an RMS of 0.2; all parameters must be matrices.

    It computes what `optax.contrib.scale_by_muon` does. That one's products are in float32, here in
    `dtype`, and take a TPU longer; and of stacked matrices, [layers, expert, m, n], it would merge
    the stacked axes, and then all devices would gather all experts, since no sharding splits the
    second of two merged axes. Here they are batch axes of matrix products.
    """

    def init(parameters: Any) -> MuonState:
        return MuonState(jnp.zeros([], jnp.int32), optax.tree.zeros_like(parameters))

    def update(gradients: Any, state: MuonState, parameters: Any = None) -> tuple[Any, MuonState]:
        count = optax.safe_increment(state.count)
        mu = optax.tree.update_moment(gradients, state.mu, _BETA, 1)
        ahead = jax.tree.map(
            lambda m, g: _BETA * m + (1 - _BETA) * g,
            optax.tree.bias_correction(mu, _BETA, count + 1),
            optax.tree.bias_correction(gradients, _BETA, count),
        )
        return jax.tree.map(lambda m: _orthogonal(m, dtype), ahead), MuonState(count, mu)

    return optax.GradientTransformation(init, update)


def _orthogonal(x: jax.Array, dtype: str) -> jax.Array:
    """About U V^T for each matrix U S V^T of [..., m, n], by Newton-Schulz iteration."""
    a, b, c = _COEFFICIENTS
    is_tall = x.shape[-2] > x.shape[-1]
    scale = _RMS * max(x.shape[-2:]) ** 0.5
    x = x / (jnp.linalg.norm(x, axis=(-2, -1), keepdims=True) + _EPSILON)
    x = (x.mT if is_tall else x).astype(dtype)  # [..., k, l], k <= l
    for _ in range(_STEPS):
        gram = x @ x.mT  # [..., k, k]
        x = a * x + (b * gram + c * gram @ gram) @ x
    return scale * (x.mT if is_tall else x).astype(jnp.float32)
