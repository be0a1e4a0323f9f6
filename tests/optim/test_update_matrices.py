"""Updates one matrix after another against those of whole stacks."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from switch_jax.config import MeshConfig
from switch_jax.kernels import by_platform
from switch_jax.optim.adafactor import adafactor
from switch_jax.partitioning.mesh import make_mesh

# By name: the logical axes, and their sizes.
PARAMETERS = {
    "wi": (("layers", "expert", "embed", "mlp"), (2, 3, 128, 130)),
    "query": (("layers", "embed", "heads"), (2, 140, 128)),
    "table": (("vocab", "embed"), (300, 128)),
    "scale": (("layers", "embed"), (2, 128)),
    "narrow": (("layers", "embed", "router"), (2, 128, 4)),
}
AXES = {name: axes for name, (axes, _) in PARAMETERS.items()}


def _arrays(seed):
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-2, 2, len(PARAMETERS))  # far from each other
    return {
        name: jnp.asarray(size * rng.normal(size=shape), jnp.float32)
        for size, (name, (_, shape)) in zip(sizes, PARAMETERS.items(), strict=True)
    }


def _steps():
    """What three steps give, of which the second is skipped: its gradients are not finite."""
    optimizer = adafactor(lambda _: 0.1, AXES, factors={**dict.fromkeys(AXES, 1.0), "wi": 0.5})
    parameters = _arrays(0)
    state = optimizer.init(parameters)
    step = jax.jit(optimizer.step)
    for i, skipped in enumerate((False, True, False)):
        gradients = jax.tree.map(lambda g, s=skipped: g * np.nan if s else g, _arrays(i + 1))
        updated, state = step(gradients, state, parameters, skipped)
        parameters = updated.parameter
    return updated, state


def test_each_matrix_by_itself_is_updated_as_in_the_stack(monkeypatch):
    calls = []
    each = by_platform._update_one_by_one
    monkeypatch.setattr(
        by_platform, "_update_one_by_one", lambda *args: calls.append(args[3].shape) or each(*args)
    )
    expected, state = _steps()
    assert calls == [], "they are in the cache"
    monkeypatch.setattr(by_platform, "_CACHE", 1000)
    found, found_state = _steps()
    shapes = [PARAMETERS[name][1] for name in ("query", "wi")]
    assert calls == shapes, "stacks that are factored, and no others"
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5)
    for name, start in _arrays(0).items():
        moved = np.abs(expected.parameter[name] - start).max()
        assert moved > 0
        close(found.parameter[name], expected.parameter[name], atol=1e-5 * moved, err_msg=name)
    jax.tree.map(close, found[1:], expected[1:])
    jax.tree.map(close, found_state, state)


def test_a_stack_on_several_devices_stays_together():
    seen = []

    def update(gradient, state, parameter):
        seen.append(parameter.shape)
        return (parameter + gradient,), state

    wi = jax.ShapeDtypeStruct((4, 8, 256, 128), jnp.float32)
    jax.eval_shape(functools.partial(by_platform.update_matrices, update), wi, (), wi)
    with jax.set_mesh(make_mesh(MeshConfig(1, 2, 1))):
        jax.eval_shape(functools.partial(by_platform.update_matrices, update), wi, (), wi)
    assert seen == [(256, 128), wi.shape]


def test_the_new_matrices_take_the_place_of_the_old_ones(monkeypatch):
    """No copy of the whole stack is made at any of the matrices; it would cost a hundred times."""
    monkeypatch.setattr(by_platform, "_CACHE", 1000)
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
