"""The mesh changes where numbers are computed, and not which."""

import dataclasses
import functools

import jax
import numpy as np

from switch_jax.config import LossConfig, MeshConfig
from switch_jax.model import logical_axes
from switch_jax.partitioning.mesh import batch_sharding, make_mesh
from switch_jax.partitioning.rules import parameter_specs
from switch_jax.partitioning.rules import shardings as shardings_of
from switch_jax.train_step.state import init_state
from switch_jax.train_step.step import make_train_step
from tests.trainer.helpers import GRADIENTS, random_batch, tiny_config, tiny_model

# Groups of 16 tokens (a row of inputs, two of targets), 16 experts with 2 slots each: 2 or more
# experts a device; dropout and jitter on; rows with much and with little padding.
MODEL = tiny_model(num_experts=16, group_size=16, dropout_rate=0.2, jitter_noise=0.1)
# A row of inputs a group, and one of targets.
TWO_SIZES = dataclasses.replace(MODEL, decoder_group_size=8)
LOSS = LossConfig(z_loss=1e-2, aux_loss_factor=0.1, router_z_loss_factor=0.01)


@functools.cache
def _initial_state():
    return jax.jit(lambda key: init_state(tiny_config(MODEL), GRADIENTS, key))(jax.random.key(1))


@functools.cache
def _train_step(shape, fully_sharded=False, model=MODEL):
    """One step on the mesh: (gradients, metrics), on the host."""
    mesh = make_mesh(MeshConfig(*shape))
    state = _initial_state()
    axes = logical_axes(MODEL)
    specs = parameter_specs(axes, state.parameters, mesh, fully_sharded)
    shardings = shardings_of(specs, mesh)
    state = state._replace(
        parameters=jax.device_put(state.parameters, shardings),
        optimizer=jax.device_put(state.optimizer, shardings),
    )
    batch = jax.device_put(random_batch(16), batch_sharding(mesh))
    step = make_train_step(tiny_config(model, loss=LOSS), GRADIENTS, shardings)
    with jax.set_mesh(mesh):
        state, metrics = jax.jit(step)(state, batch)
    for gradient, sharding in zip(
        jax.tree.leaves(state.optimizer), jax.tree.leaves(shardings), strict=True
    ):
        assert gradient.sharding.is_equivalent_to(sharding, gradient.ndim)
    return jax.device_get((state.optimizer, metrics))


def test_loss_metrics_and_every_gradient_are_those_of_one_device():
    expected, expected_metrics = _train_step((1, 1, 1))
    for router in (expected_metrics.encoder_router, expected_metrics.decoder_router):
        assert float(router.dropped.min()) > 0.02, "the case should overflow"

    _assert_same(_train_step((1, 8, 1)), (expected, expected_metrics))


def test_each_stack_has_its_own_groups_on_every_mesh():
    step = _train_step((2, 2, 2), model=TWO_SIZES)
    expected = _train_step((1, 1, 1), model=TWO_SIZES)
    _assert_same(step, expected)
    # The encoder's are as in MODEL, the decoder's are not.
    one, two = _train_step((1, 1, 1))[1], expected[1]
    np.testing.assert_allclose(two.encoder_router.dropped, one.encoder_router.dropped, rtol=1e-5)
    assert abs(two.decoder_router.dropped - one.decoder_router.dropped).max() > 0.01


def test_fully_sharded_weights_change_no_number():
    _assert_same(_train_step((2, 2, 2), fully_sharded=True), _train_step((1, 1, 1)))


def _assert_same(step, expected):
    """Gradients and metrics of two steps agree to rounding."""
    gradients, metrics = step
    for a, b in zip(jax.tree.leaves(metrics), jax.tree.leaves(expected[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    for (path, a), b in zip(
        jax.tree_util.tree_leaves_with_path(gradients), jax.tree.leaves(expected[0]), strict=True
    ):
        largest = np.abs(b).max()
        assert largest > 0, path
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * largest, err_msg=str(path))
