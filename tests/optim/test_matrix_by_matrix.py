"""Updates one matrix after another against those of whole stacks."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.optim import matrix_by_matrix
from switch_jax.optim.adafactor import adafactor
from switch_jax.partitioning.mesh import make_mesh

AXES = {
    "wi": ("layers", "expert", "embed", "mlp"),
    "query": ("layers", "embed", "heads"),
    "table": ("vocab", "embed"),
    "scale": ("layers", "embed"),
    "narrow": ("layers", "embed", "router"),
}
SHAPES = {
    "wi": (2, 3, 128, 130),
    "query": (2, 140, 128),
    "table": (300, 128),
    "scale": (2, 128),
    "narrow": (2, 128, 4),
}


def _arrays(seed):
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-2, 2, len(SHAPES))  # far from each other
    return {
        name: jnp.asarray(size * rng.normal(size=shape), jnp.float32)
        for size, (name, shape) in zip(sizes, SHAPES.items(), strict=True)
    }


def _steps(optimizer, skip=(False, True, False)):
    """What three steps give, of which the second is skipped: its gradients are not finite."""
    parameters = _arrays(0)
    state = optimizer.init(parameters)
    step = jax.jit(optimizer.step)
    for i, skipped in enumerate(skip):
        gradients = jax.tree.map(lambda g, s=skipped: g * np.nan if s else g, _arrays(i + 1))
        updated, state = step(gradients, state, parameters, skipped)
        parameters = updated.parameter
    return updated, state


@pytest.fixture
def small_cache(monkeypatch):
    monkeypatch.setattr(matrix_by_matrix, "_CACHE", 1000)


def test_each_matrix_by_itself_is_updated_as_in_the_stack(monkeypatch):
    factors = {**dict.fromkeys(AXES, 1.0), "wi": 0.5}
    expected, state = _steps(adafactor(lambda _: 0.1, AXES, factors=factors))
    calls = []
    each = matrix_by_matrix.update_each
    monkeypatch.setattr(matrix_by_matrix, "_CACHE", 1000)
    monkeypatch.setattr(
        matrix_by_matrix, "update_each", lambda *args: calls.append(args[1]) or each(*args)
    )
    found, found_state = _steps(adafactor(lambda _: 0.1, AXES, factors=factors))
    assert calls == [AXES["query"], AXES["wi"]], "stacks that are factored, and no others"
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    for name in SHAPES:
        moved = np.abs(expected.parameter[name] - _arrays(0)[name]).max()
        assert moved > 0
        close(found.parameter[name], expected.parameter[name], atol=1e-5 * moved, err_msg=name)
    jax.tree.map(close, found[1:], expected[1:])
    jax.tree.map(close, found_state, state)


def test_sums_of_squares_are_those_of_the_parameters_and_of_what_was_added(small_cache):
    optimizer = adafactor(lambda _: 0.1, AXES)
    updated, state = _steps(optimizer, skip=(False,))
    for name, start in _arrays(0).items():
        new = np.asarray(updated.parameter[name], np.float64)
        np.testing.assert_allclose(updated.square_sum[name], np.sum(new**2), rtol=1e-5)
        # The difference of float32 numbers has few digits where the update is small.
        added = np.sum((new - np.asarray(start, np.float64)) ** 2)
        np.testing.assert_allclose(updated.update_square_sum[name], added, rtol=1e-3)
    own = np.sum(np.asarray(updated.parameter["wi"], np.float64) ** 2, axis=(2, 3))
    np.testing.assert_allclose(state.moments["wi"].square_sum, own, rtol=1e-5)


def test_a_skipped_step_changes_no_bit(small_cache):
    optimizer = adafactor(lambda _: 0.1, AXES)
    parameters = _arrays(0)
    state = optimizer.init(parameters)
    gradients = jax.tree.map(lambda p: p * np.inf, parameters)
    updated, after = jax.jit(optimizer.step)(gradients, state, parameters, True)
    for old, new in ((parameters, updated.parameter), (state, after)):
        for a, b in zip(jax.tree.leaves(old), jax.tree.leaves(new), strict=True):
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert all(sum_ == 0 for sum_ in jax.tree.leaves(updated.update_square_sum))


def test_with_experts_alone_trained_only_they_change(small_cache):
    optimizer = adafactor(lambda _: 0.1, AXES, is_trained={name: name == "wi" for name in AXES})
    updated, _ = _steps(optimizer)
    changed = [n for n, p in _arrays(0).items() if (updated.parameter[n] != p).any()]
    assert changed == ["wi"]


def test_only_large_stacks_on_one_cpu_are_taken_apart(small_cache):
    wi = jax.ShapeDtypeStruct(SHAPES["wi"], jnp.float32)
    assert matrix_by_matrix.is_faster(AXES["wi"], wi)
    assert not matrix_by_matrix.is_faster(
        AXES["scale"], jax.ShapeDtypeStruct((2, 500), jnp.float32)
    )
    with jax.set_mesh(make_mesh(MeshConfig(1, 2, 1))):
        assert not matrix_by_matrix.is_faster(AXES["wi"], wi)


def test_small_stacks_stay_whole():
    assert not matrix_by_matrix.is_faster(
        AXES["wi"], jax.ShapeDtypeStruct(SHAPES["wi"], jnp.float32)
    )


def test_the_new_matrices_take_the_place_of_the_old_ones(small_cache):
    """No copy of the whole stack is made at any of the matrices; it would cost a hundred times."""
    axes = {"wi": AXES["wi"]}
    optimizer = adafactor(lambda _: 0.1, axes)
    parameters = {"wi": jax.ShapeDtypeStruct((2, 8, 128, 256), jnp.float32)}
    state = jax.eval_shape(optimizer.init, parameters)
    step = jax.jit(optimizer.step, donate_argnums=(1, 2))
    compiled = step.lower(parameters, state, parameters, False).compile()
    size = 2 * 8 * 128 * 256 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < size // 2
    body = compiled.as_text().split("ENTRY")[0]
    assert re.findall(r"f32\[2,8,128,256\]\S* copy\(", body) == []
