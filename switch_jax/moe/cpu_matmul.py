"""The experts' matrix product for a CPU, with a gradient that a CPU computes fast."""

import jax
import jax.numpy as jnp
from jax import lax


@jax.custom_vjp
def expert_matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """[E, rows, D] x [E, D, F] -> [E, rows, F]."""
    return jnp.einsum("erd,edf->erf", x, w)  # [E, rows, F]


def _forward(x: jax.Array, w: jax.Array):
    return expert_matmul(x, w), (x, w)


def _backward(residuals: tuple[jax.Array, jax.Array], y_grad: jax.Array):
    x, w = residuals
    # The weights come first: few rows times a transposed matrix takes a CPU five times as long.
    # Behind a barrier: without it the compiler would swap the factors back, to save transposing
    # the result.
    x_grad = lax.optimization_barrier(jnp.einsum("edf,erf->edr", w, y_grad))  # [E, D, rows]
    x_grad = jnp.swapaxes(x_grad, 1, 2)  # [E, rows, D]
    w_grad = jnp.einsum("erd,erf->edf", x, y_grad)  # [E, D, F]
    return x_grad, w_grad


expert_matmul.defvjp(_forward, _backward)
