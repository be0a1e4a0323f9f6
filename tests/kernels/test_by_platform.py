"""Operations that differ by platform: each form against the same reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.kernels import by_platform


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("axes", ["vd", "dv"])
@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-6), ("bfloat16", 1e-2)])
def test_logits_and_their_gradients(monkeypatch, platform, axes, dtype, error):
    monkeypatch.setattr(by_platform, "platform", lambda: platform)
    rng = np.random.default_rng(0)
    x, table, y_grad = (
        jnp.asarray(rng.normal(size=shape), kind)
        for shape, kind in [((3, 5, 4), dtype), ((7, 4), dtype), ((3, 5, 7), "float32")]
    )
    matrix = table if axes == "vd" else table.T

    def product(x, matrix):
        return by_platform.matmul_for_logits(x, matrix, axes)

    logits, pull_back = jax.vjp(product, x, matrix)
    x_grad, matrix_grad = pull_back(y_grad)
    assert logits.dtype == jnp.float32 and {x_grad.dtype, matrix_grad.dtype} == {x.dtype}
    wide, wide_table, wide_grad = (np.asarray(a, np.float64) for a in (x, table, y_grad))
    table_grad = np.einsum("blv,bld->vd", wide_grad, wide)
    for got, expected in [
        (logits, wide @ wide_table.T),
        (x_grad, wide_grad @ wide_table),
        (matrix_grad, table_grad if axes == "vd" else table_grad.T),
    ]:
        got = np.asarray(got, np.float64)
        np.testing.assert_allclose(got, expected, rtol=error, atol=error * np.abs(expected).max())
