"""RMSNorm, dropout and the token embedding."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.config import ModelConfig
from switch_jax.kernels.by_platform import matmul, matmul_for_logits
from switch_jax.model import parameters
from switch_jax.partitioning.mesh import MODEL, current_mesh
from switch_jax.partitioning.rules import gather_fully_sharded


class RMSNorm(nnx.Module):
    """T5's layer norm: no mean, no bias; the variance is float32."""

    def __init__(self, config: ModelConfig) -> None:
        self.scale = parameters.constant((config.embed_dim,), ("embed",), 1.0)
        self.epsilon = config.norm_epsilon

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., D] -> [..., D] of the same dtype."""
        return rms_norm(x, self.scale[...], self.epsilon)


def project(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """[..., D] x [D, F] -> [..., F], in x's dtype."""
    return matmul(x, kernel.astype(x.dtype))


def _normalise(x: jax.Array, scale: jax.Array, epsilon: float) -> jax.Array:
    wide = x.astype(jnp.float32)  # [..., D]
    variance = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)  # [..., 1]
    return (wide * jax.lax.rsqrt(variance + epsilon) * scale).astype(x.dtype)


def _normalise_backward(epsilon, saved, dy):
    """Two passes over x and dy: the sums along tokens and features, then the gradient of x.

    The second pass reads x and dy behind a barrier: without it the compiler would keep float32
    copies for that pass.
    """
    x, scale = saved

    def widen(x, dy):
        x, dy = x.astype(jnp.float32), dy.astype(jnp.float32)
        return x, dy, dy * scale

    wide, wide_dy, scaled = widen(x, dy)  # [..., D] each
    variance = jnp.mean(jnp.square(wide), axis=-1, keepdims=True)  # [..., 1]
    inverse = jax.lax.rsqrt(variance + epsilon)  # [..., 1]
    dscale = jnp.sum(wide_dy * wide * inverse, axis=tuple(range(x.ndim - 1)))  # [D]
    mean = jnp.mean(scaled * wide, axis=-1, keepdims=True) * inverse**2  # [..., 1]
    wide, _, scaled = widen(*jax.lax.optimization_barrier((x, dy)))
    return ((scaled - wide * mean) * inverse).astype(x.dtype), dscale


# Left to itself, differentiation would save several float32 copies of x for the backward pass.
rms_norm = jax.custom_vjp(_normalise, nondiff_argnums=(2,))
rms_norm.defvjp(
    lambda x, scale, epsilon: (_normalise(x, scale, epsilon), (x, scale)), _normalise_backward
)


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Zeroes elements with probability `rate` and scales the rest, as T5 does; None = no dropout.

    All positions of a row share one mask, as in Mesh TensorFlow and T5X. Within the experts each
    element has its own; see `moe.experts.expert_dropout`. x is [..., L, D] activations, or
    [..., L, M] attention weights, where L counts queries.
    """
    if key is None or rate == 0:
        return x
    mask = jax.random.bernoulli(key, 1 - rate, (*x.shape[:-2], 1, x.shape[-1]))  # [..., 1, D]
    return jnp.where(mask, x / (1 - rate), 0).astype(x.dtype)


class Embedding(nnx.Module):
    """The token embedding [V, D]; with tied embeddings it computes the logits too."""

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs) -> None:
        shape = (config.num_embeddings, config.embed_dim)
        self.embedding = parameters.normal(rngs, shape, ("vocab", "embed"), std=1.0)
        self.dtype = jnp.dtype(config.activation_dtype)

    def __call__(self, *tokens: jax.Array) -> tuple[jax.Array, ...]:
        """Ids [B, L] -> [B, L, D], for each argument."""
        return _look_up(self.embedding[...], tokens, self.dtype)

    def logits(self, x: jax.Array) -> jax.Array:
        """[B, L, D] -> [B, L, V] float32, x scaled by D^-0.5 (T5 1.0)."""
        table = self.embedding[...] * x.shape[-1] ** -0.5
        # Cast once for all products, in the same pass as the scaling.
        table = jax.lax.optimization_barrier(table.astype(self.dtype))
        if current_mesh().shape[MODEL] > 1:
            # The gradient of x is split by its width: from a table split by rows over all devices
            # the compiler would make it by way of the whole table on each.
            table = gather_fully_sharded(table, ("vocab", "embed"))
        return matmul_for_logits(x, table, "vd")


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _look_up(
    table: jax.Array, tokens: tuple[jax.Array, ...], dtype: jnp.dtype
) -> tuple[jax.Array, ...]:
    """Rows of a float32 [V, D], in `dtype`; one call, so that the gradient is one sum."""
    return tuple(jnp.take(table, t, axis=0).astype(dtype) for t in tokens)


def _look_up_fwd(table, tokens, dtype):
    return _look_up(table, tokens, dtype), (table, tokens)


def _look_up_bwd(dtype, residuals, cotangents):
    """The sum over all look-ups, in float32: a frequent token has thousands of terms.

    In bfloat16 a running sum stops growing once its terms are below 1/256 of it.
    """
    del dtype
    table, tokens = residuals
    # One scatter-add, and so one sum over devices. Devices split the rows, not their length.
    ids = jnp.concatenate(tokens, axis=1)  # [B, M + L]
    terms = jnp.concatenate(cotangents, axis=1).astype(table.dtype)  # [B, M + L, D] float32
    return jnp.zeros_like(table).at[ids].add(terms), None  # [V, D]


_look_up.defvjp(_look_up_fwd, _look_up_bwd)
