import jax
import numpy as np

from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.lowering import (
    abstract_batch,
    abstract_signals,
    compiler_options,
    lower_train_step,
)
from switch_jax.train_step.state import abstract_state
from tests.trainer.helpers import random_batch, tiny_config, tiny_model

CONFIG = tiny_config(tiny_model(group_size=8), mesh=MeshConfig(2, 4, 1))


def test_the_step_takes_what_training_gives_it_and_gives_back_its_state():
    mesh = make_mesh(CONFIG.mesh)
    state = abstract_state(CONFIG, mesh)
    with jax.set_mesh(mesh):
        lowered = lower_train_step(CONFIG, mesh, state)
    new_state, metrics = lowered.out_info
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), new_state)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics.loss.shape == () and metrics.encoder_router.load.shape == (1, 4)
    donated = [a.donated for a in jax.tree.leaves(lowered.args_info[0][0])]
    assert donated and all(donated)


def test_the_shapes_of_a_batch_are_those_of_a_real_one():
    mesh = make_mesh(CONFIG.mesh)
    shapes = abstract_batch(CONFIG, mesh)
    real = random_batch(8)
    assert {k: (s.shape, s.dtype) for k, s in shapes.items()} == {
        k: (a.shape, a.dtype) for k, a in real.items()
    }
    rows = {s.sharding.shard_shape(s.shape)[0] for s in shapes.values()}
    assert rows == {1}  # 8 rows over 2 x 4 devices


def test_each_device_has_a_signal_of_its_own():
    signals = abstract_signals(make_mesh(MeshConfig(2, 2, 2)))
    assert (signals.shape, signals.dtype) == ((8,), np.int32)
    assert signals.sharding.shard_shape(signals.shape) == (1,)


def test_cpus_get_no_options_of_tpus():
    with jax.set_mesh(make_mesh(MeshConfig(1, 1, 1))):
        assert compiler_options() == {}
