import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.kernels import by_platform
from switch_jax.optim.adafactor import adafactor


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_an_update_and_its_norm_are_those_written_out_on_every_platform(monkeypatch, platform):
    """The first update of a stack of factored matrices, in NumPy's float64."""
    monkeypatch.setattr(by_platform, "platform", lambda: platform)
    rate, rng = 0.1, np.random.default_rng(0)
    w, g = rng.normal(size=(2, 2, 128, 130)).astype(np.float32)
    g *= np.float32([[[1e-3]], [[30.0]]])  # each matrix is clipped by itself
    optimizer = adafactor(lambda _: rate, {"w": ("layers", "embed", "mlp")})
    parameters = {"w": jnp.asarray(w)}
    state = optimizer.init(parameters)
    updated, _ = jax.jit(optimizer.step)({"w": jnp.asarray(g)}, state, parameters, False)

    w, g = w.astype(np.float64), g.astype(np.float64)
    squares = g**2 + 1e-30  # the decay of the first update is 0
    row, column = squares.mean(2, keepdims=True), squares.mean(1, keepdims=True)
    update = g / np.sqrt(row / row.mean(1, keepdims=True) * column)

    def rms(x):
        return np.sqrt((x**2).mean((1, 2), keepdims=True))

    update *= rate * np.maximum(rms(w), 1e-3) / np.maximum(1.0, rms(update))
    np.testing.assert_allclose(updated.parameter["w"], w - update, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(updated.update_square_sum["w"], (update**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(updated.square_sum["w"], ((w - update) ** 2).sum(), rtol=1e-5)
