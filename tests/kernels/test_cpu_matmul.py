import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.kernels.cpu_matmul import matmul


@pytest.mark.parametrize("experts", [(), (3,)])
@pytest.mark.parametrize(
    ("rows", "dim", "hidden"),
    [(5, 8, 12), (70, 8, 12), (70, 12, 8), (10, 12, 8)],
    ids=["few rows", "wide", "narrow", "few rows, narrow"],
)
def test_the_product_and_its_gradients_are_those_of_numpy(experts, rows, dim, hidden):
    rng = np.random.default_rng(0)
    shapes = (rows, dim), (dim, hidden), (rows, hidden)
    x, w, y_grad = (rng.normal(size=(*experts, *s)).astype(np.float32) for s in shapes)
    y, gradients = jax.jit(lambda x, w: jax.vjp(matmul, x, w))(x, w)
    x_grad, w_grad = gradients(y_grad)
    x, w, y_grad = (a.astype(np.float64) for a in (x, w, y_grad))
    for found, expected in [
        (y, x @ w), (x_grad, y_grad @ w.swapaxes(-1, -2)), (w_grad, x.swapaxes(-1, -2) @ y_grad)
    ]:  # fmt: skip
        assert found.dtype == jnp.float32
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_bfloat16_stays_bfloat16():
    def both(x, w):
        y, gradients = jax.vjp(matmul, x, w)
        return y, *gradients(y)

    shapes = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in ((70, 12), (12, 8)))
    assert {a.dtype for a in jax.eval_shape(both, *shapes)} == {jnp.dtype(jnp.bfloat16)}
