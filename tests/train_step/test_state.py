import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import GuardConfig, MeshConfig, OptimizerConfig
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.state import abstract_state, fresh_state, init_state
from tests.trainer.helpers import tiny_config, tiny_model

# So large that the moments of matrices are factored.
MODEL = tiny_model(num_embeddings=128, embed_dim=128, mlp_dim=128)


@pytest.mark.parametrize(("fully_sharded", "trained"), [(False, "all"), (True, "expert")])
def test_the_abstract_state_has_the_shapes_and_dtypes_of_a_real_one(fully_sharded, trained):
    mesh = MeshConfig(2, 2, 2, fully_sharded_weights=fully_sharded)
    optimizer, guard = OptimizerConfig(trained_parameters=trained), GuardConfig(spike_window=8)
    config = tiny_config(MODEL, mesh=mesh, optimizer=optimizer, guard=guard)
    abstract = abstract_state(config, make_mesh(mesh))
    transformation = make_optimizer(config)
    state = jax.jit(lambda key: init_state(config, transformation, key))(jax.random.key(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), state) == jax.tree.map(
        lambda s: (s.shape, s.dtype), abstract
    )


def test_experts_and_their_moments_lie_over_the_expert_axis():
    mesh = MeshConfig(2, 4, 1)
    abstract = abstract_state(tiny_config(MODEL, mesh=mesh), make_mesh(mesh))
    wi = abstract.parameters["encoder"]["blocks"]["layer_1"]["feed_forward"]["wi_0"]
    moment = abstract.optimizer.moments["encoder"]["blocks"]["layer_1"]["feed_forward"]["wi_0"]
    # [blocks, E, D, F]: one of four experts on each device.
    assert wi.sharding.shard_shape(wi.shape) == (1, 1, 128, 128)
    assert moment.row.sharding.shard_shape(moment.row.shape) == (1, 1, 128)


def test_a_fresh_state_has_the_given_parameters_and_no_history():
    config = tiny_config(MODEL, guard=GuardConfig(spike_window=8))
    optimizer = make_optimizer(config)
    parameters = init_state(config, optimizer, jax.random.key(3)).parameters
    state = fresh_state(config, optimizer, parameters)
    for a, b in zip(*map(jax.tree.leaves, (state.parameters, parameters)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(state.step) == int(state.optimizer.updates) == int(state.guard.good) == 0
    assert state.guard.recent.shape == (2, 8) and jnp.isinf(state.guard.recent).all()
