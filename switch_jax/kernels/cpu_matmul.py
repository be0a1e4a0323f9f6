"""The matrix product for a CPU, with gradients in the forms that its compiler computes fast."""

import jax
import jax.numpy as jnp
from jax import lax

# With fewer rows a CPU multiplies faster expert by expert; and for all experts at once, or one wide
# matrix, the product with a transposed matrix takes up to five times as long as with the matrix.
_FEW_ROWS = 64


@jax.custom_vjp
def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """[rows, D] x [D, F] -> [rows, F]; or [E, rows, D] x [E, D, F] -> [E, rows, F]."""
    return _product(x, w)


def _forward(x: jax.Array, w: jax.Array):
    return _product(x, w), (x, w)


def _product(x: jax.Array, w: jax.Array) -> jax.Array:
    # Expert by expert, REMAT_POLICY = 'minimal' saves what it saves of dense layers: the products.
    if w.ndim == 3 and x.shape[-2] < _FEW_ROWS:
        return lax.map(lambda one: one[0] @ one[1], (x, w))  # [E, rows, F]
    return x @ w


def _backward(residuals: tuple[jax.Array, jax.Array], y_grad: jax.Array):
    x, w = residuals
    rows, (dim, hidden) = x.shape[-2], w.shape[-2:]
    if rows < _FEW_ROWS and w.ndim == 3 and hidden < dim:
        x_grad = lax.map(lambda one: one[0] @ one[1].T, (y_grad, w))  # [E, rows, D]
    elif rows < _FEW_ROWS:
        x_grad = _transposed(jnp.einsum("...df,...rf->...dr", w, y_grad))  # [..., rows, D]
    else:
        x_grad = jnp.einsum("...rf,...df->...rd", y_grad, w)  # [..., rows, D]
    if hidden < dim < rows:  # a narrow result takes half as long again as a wide one
        w_grad = _transposed(jnp.einsum("...rf,...rd->...fd", y_grad, x))  # [..., D, F]
    else:
        w_grad = jnp.einsum("...rd,...rf->...df", x, y_grad)  # [..., D, F]
    return x_grad, w_grad


def _transposed(product: jax.Array) -> jax.Array:
    """Behind a barrier: without it the compiler would swap the factors, and not transpose."""
    return jnp.swapaxes(lax.optimization_barrier(product), -1, -2)


matmul.defvjp(_forward, _backward)
