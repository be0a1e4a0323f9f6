import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.optim import adafactor as module
from switch_jax.optim.adafactor import adafactor, moment_axes


def _tree(shapes, seed):
    rng = np.random.default_rng(seed)
    return {k: jnp.asarray(rng.normal(size=s), jnp.float32) for k, s in shapes.items()}


def _run(optimizer, parameters, steps=3):
    state = optimizer.init(parameters)
    for i in range(steps):
        gradients = _tree({k: p.shape for k, p in parameters.items()}, seed=i + 1)
        updated, state = optimizer.step(gradients, state, parameters, False)
        parameters = updated.parameter
    return parameters, state


def test_the_state_knows_the_squares_of_the_parameters_from_their_last_update():
    axes = {"wi": ("layers", "embed", "mlp"), "scale": ("embed",)}
    parameters = _tree({"wi": (2, 128, 129), "scale": (64,)}, seed=0)
    for steps in (0, 2):
        updated, state = _run(adafactor(lambda _: 0.1, axes), parameters, steps)
        for name, own in (("wi", (1, 2)), ("scale", (0,))):
            total = np.sum(np.square(updated[name], dtype=np.float64), axis=own)
            np.testing.assert_allclose(state.moments[name].square_sum, total, rtol=1e-6)


def test_moments_lie_where_their_parameter_lies():
    axes = {"wi": ("layers", "expert", "embed", "mlp"), "scale": ("layers", "embed")}
    parameters = {"wi": jnp.zeros((2, 4, 128, 256)), "scale": jnp.zeros((2, 128))}
    state = jax.eval_shape(adafactor(lambda _: 1.0, axes).init, parameters)
    placed = moment_axes(axes, state.moments)
    both = ("layers", "expert")
    assert placed["wi"] == ((*both, "embed"), (*both, "mlp"), None, both)
    assert placed["scale"] == (None, None, ("layers", "embed"), ("layers",))


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_an_update_and_its_norm_are_those_written_out_on_every_platform(monkeypatch, platform):
    """The first update of a stack of factored matrices, in NumPy's float64."""
    monkeypatch.setattr(module, "platform", lambda: platform)
    shape, rate = (2, 128, 130), 0.1
    parameters, gradients = (_tree({"w": shape}, seed=i) for i in (0, 1))
    gradients["w"] *= jnp.asarray([[[1e-3]], [[30.0]]])  # each matrix is clipped by itself
    optimizer = adafactor(lambda _: rate, {"w": ("layers", "embed", "mlp")})
    updated, _ = jax.jit(optimizer.step)(gradients, optimizer.init(parameters), parameters, False)

    w, g = (np.asarray(tree["w"], np.float64) for tree in (parameters, gradients))
    squares = g**2 + 1e-30  # the decay of the first update is 0
    row, column = squares.mean(2, keepdims=True), squares.mean(1, keepdims=True)
    update = g / np.sqrt(row / row.mean(1, keepdims=True) * column)

    def rms(x):
        return np.sqrt((x**2).mean((1, 2), keepdims=True))

    update *= rate * np.maximum(rms(w), 1e-3) / np.maximum(1.0, rms(update))
    np.testing.assert_allclose(updated.parameter["w"], w - update, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(updated.update_square_sum["w"], (update**2).sum(), rtol=1e-5)
    np.testing.assert_allclose(updated.square_sum["w"], ((w - update) ** 2).sum(), rtol=1e-5)
