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


def _gradients(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda p: rng.normal(size=p.shape).astype(np.float32), abstract_parameters(MODEL)
    )


def _update(*sizes):
    """Parameters and state after two updates on a mesh, and the text of the program.

    By Muon, which has AdamW in it for what is no matrix; of the encoder, so that it is compiled in
    half of the time.
    """
    optimizer = OptimizerConfig(
        "muon", learning_rate=0.01, weight_decay=0.1, gradient_clip_norm=1.0,
        learning_rate_factors=[(".*/router", 0.1)], trained_parameters="encoder/.*|token_embed.*",
    )  # fmt: skip
    config = tiny_config(MODEL, mesh=MeshConfig(*sizes), optimizer=optimizer)
    mesh, made = make_mesh(config.mesh), make_optimizer(config)
    shapes = abstract_state(config, mesh)
    places = jax.tree.map(lambda s: s.sharding, (shapes.parameters, shapes.optimizer))

    def update(parameters, state, gradients):
        updated, state = made.step(gradients, state, parameters, False)
        return updated.parameter, state

    with jax.set_mesh(mesh):
        step = jax.jit(update, out_shardings=places)
        step = step.lower(shapes.parameters, shapes.optimizer, shapes.parameters).compile()
        drawn = jax.jit(init_parameters, static_argnums=0)(MODEL, jax.random.key(0))
        parameters = jax.device_put(drawn, places[0])
        state = jax.device_put(made.init(parameters), places[1])
        for seed in range(2):
            gradients = jax.device_put(_gradients(seed), places[0])
            parameters, state = step(parameters, state, gradients)
    return jax.device_get((parameters, state)), step.as_text()


def test_sharded_updates_are_those_of_one_device_and_experts_stay_where_they_are():
    expected, _ = _update(1, 1, 1)
    all_axes, _ = _update(2, 2, 2, True)
    unsplit_matrices, text = _update(2, 4, 1)
    for updated in all_axes, unsplit_matrices:
        for (path, a), b in zip(
            jax.tree_util.tree_leaves_with_path(updated), jax.tree.leaves(expected), strict=True
        ):
            np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6, err_msg=str(path))
    assert " all-reduce(" in text, "the norm of all gradients is one"
    assert re.findall(r" (all-gather|all-to-all|collective-permute)\S*\(", text) == []


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("fully_sharded", [False, True])
def test_the_state_lies_where_the_parameters_do(fully_sharded, optimizer):
    mesh = MeshConfig(2, 2, 2, fully_sharded_weights=fully_sharded)
    config = tiny_config(MODEL, mesh=mesh, optimizer=OptimizerConfig(optimizer))
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
    # Muon leaves two routers and what is no matrix to AdamW.
    of_adamw = 2 + rest if optimizer == "muon" else matrices + rest
    assert found == {"mu": matrices + rest, "nu": of_adamw}
