"""The mesh changes where numbers are computed, and not which."""

import functools

import jax
import numpy as np
import pytest

from switch_jax.config import LossConfig, MeshConfig
from switch_jax.partitioning.mesh import batch_sharding, make_mesh
from switch_jax.train_step.state import abstract_model, init_state
from switch_jax.train_step.step import make_train_step
from tests.trainer.helpers import GRADIENTS, random_batch, tiny_config, tiny_model

# 16 experts with 2 slots each in groups of 16 tokens, a row of inputs, and with 1 in groups of 8, a
# row of targets: 2 or more experts a device; dropout and jitter on; much and little padding.
MODEL = tiny_model(
    num_experts=16, group_size=16, decoder_group_size=8, dropout_rate=0.2, jitter_noise=0.1,
    num_decoder_layers=1, num_decoder_sparse_layers=1, num_heads=4,
)  # fmt: skip
LOSS = LossConfig(z_loss=1e-2, aux_loss_factor=0.1, router_z_loss_factor=0.01)


@functools.cache
def _initial_state():
    return jax.jit(lambda key: init_state(tiny_config(MODEL), GRADIENTS, key))(jax.random.key(1))


def _train_step(*sizes):
    """One step on the mesh: (gradients, metrics), on the host."""
    config = tiny_config(MODEL, loss=LOSS, mesh=MeshConfig(*sizes))
    mesh, state = make_mesh(config.mesh), _initial_state()
    shardings = jax.tree.map(lambda s: s.sharding, abstract_model(MODEL, config.mesh, mesh))
    state = state._replace(
        parameters=jax.device_put(state.parameters, shardings),
        optimizer=jax.device_put(state.optimizer, shardings),
    )
    batch = jax.device_put(random_batch(16), batch_sharding(mesh))
    with jax.set_mesh(mesh):
        state, metrics = jax.jit(make_train_step(config, GRADIENTS, shardings))(state, batch)
    for gradient, sharding in zip(
        jax.tree.leaves(state.optimizer), jax.tree.leaves(shardings), strict=True
    ):
        assert gradient.sharding.is_equivalent_to(sharding, gradient.ndim)
    return jax.device_get((state.optimizer, metrics))


@pytest.fixture(scope="module")
def one_device():
    return _train_step(1, 1, 1)


@pytest.mark.parametrize(
    "sizes",
    [(1, 8, 1), (2, 2, 2, True), (1, 2, 4)],
    ids=["experts", "fully sharded", "four parts of the width"],
)
def test_loss_metrics_and_every_gradient_are_those_of_one_device(one_device, sizes):
    expected_gradients, expected = one_device
    for router in expected.routers.values():
        assert float(router.dropped.min()) > 0.02, "the case should overflow"
    gradients, metrics = _train_step(*sizes)
    for a, b in zip(jax.tree.leaves(metrics), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(gradients),
        jax.tree.leaves(expected_gradients),
        strict=True,
    ):
        largest = np.abs(b).max()
        assert largest > 0, path
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest, err_msg=str(path))
