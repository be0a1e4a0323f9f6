"""The state lies where the parameters do, and the mesh changes no number."""

import re

import jax
import numpy as np
import pytest

from switch_jax.config import MeshConfig, OptimizerConfig
from switch_jax.model import abstract_parameters, init_parameters
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.state import abstract_state
from tests.trainer.helpers import tiny_config, tiny_model

# Two layers of four experts in the encoder, one in the decoder.
MODEL = tiny_model(sparse_step=1, num_decoder_layers=1)
OPTIMIZERS = ["adamw", "muon"]


def _gradients(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: rng.normal(size=p.shape).astype(np.float32), abstract_parameters(MODEL)
    )


def _update(optimizer, mesh, steps=2):
    """Parameters and state after some updates on a mesh, and the text of the program."""
    values = {"learning_rate": 0.01, "weight_decay": 0.1, "gradient_clip_norm": 1.0}
    values["learning_rate_factors"] = [(".*/router", 0.1), ("encoder/.*", 0.5)]
    chosen = OptimizerConfig(optimizer=optimizer, **values)
    config = tiny_config(MODEL, mesh=mesh, optimizer=chosen)
    devices = make_mesh(mesh)
    made, abstract = make_optimizer(config), abstract_state(config, devices)
    places = jax.tree.map(lambda s: s.sharding, (abstract.parameters, abstract.optimizer))

    def update(parameters, state, gradients):
        updated, state = made.step(gradients, state, parameters, False)
        return updated.parameter, state

    with jax.set_mesh(devices):
        step = jax.jit(update, out_shardings=places)
        step = step.lower(abstract.parameters, abstract.optimizer, abstract.parameters).compile()
        parameters = jax.device_put(init_parameters(MODEL, jax.random.key(0)), places[0])
        state = jax.device_put(made.init(parameters), places[1])
        for seed in range(steps):
            gradients = jax.device_put(_gradients(seed), places[0])
            parameters, state = step(parameters, state, gradients)
    return jax.device_get((parameters, state)), step.as_text()


@pytest.mark.parametrize("optimizer", [pytest.param("adamw", marks=pytest.mark.slow), "muon"])
def test_sharded_updates_are_those_of_one_device(optimizer):
    expected, _ = _update(optimizer, MeshConfig(1, 1, 1))
    for mesh in (MeshConfig(2, 2, 2), MeshConfig(2, 4, 1, fully_sharded_weights=True)):
        updated, _ = _update(optimizer, mesh)
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(updated), jax.tree.leaves(expected), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=str(path))


@pytest.mark.parametrize("fully_sharded", [False, True])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_state_lies_where_the_parameters_do(optimizer, fully_sharded):
    mesh = MeshConfig(2, 2, 2, fully_sharded_weights=fully_sharded)
    config = tiny_config(MODEL, mesh=mesh, optimizer=OptimizerConfig(optimizer=optimizer))
    state = abstract_state(config, make_mesh(mesh))
    found = {"mu": 0, "nu": 0}
    parameters = dict(jax.tree_util.tree_leaves_with_path(state.parameters))
    for path, array in jax.tree_util.tree_leaves_with_path(state.optimizer):
        own = next((parameters[path[i:]] for i in range(len(path)) if path[i:] in parameters), None)
        if own is None:
            assert array.sharding.is_fully_replicated and array.size <= 1
            continue
        found[next(k for k in found if f".{k}" in jax.tree_util.keystr(path))] += 1
        expected = own.sharding.shard_shape(own.shape)[: array.ndim]
        assert array.sharding.shard_shape(array.shape) == expected, path
    matrices = (4 + 3) + (4 + 4 + 3)  # attention, router and FFN of both stacks
    rest = 2 + 3 + 2 + 2 + 1  # norms, final norms, tables of positions, the embedding
    assert (
        found
        == {
            "adamw": {"mu": matrices + rest, "nu": matrices + rest},
            # AdamW for two routers and what is no matrix.
            "muon": {"mu": matrices + rest, "nu": 2 + rest},
        }[optimizer]
    )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_experts_stay_where_they_are(optimizer):
    _, text = _update(optimizer, MeshConfig(2, 4, 1), steps=0)
    assert " all-reduce(" in text, "the norm of all gradients is one"
    assert re.findall(r" (all-gather|all-to-all|collective-permute)\S*\(", text) == []
