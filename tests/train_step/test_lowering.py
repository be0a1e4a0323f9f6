import types

import jax
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step import lowering
from switch_jax.train_step.lowering import (
    abstract_batch,
    abstract_signals,
    compiler_options,
    lower_train_step,
)
from switch_jax.train_step.state import abstract_state
from switch_jax.train_step.step import make_train_step
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


@pytest.mark.parametrize(
    ("scan_layers", "policy", "microbatches", "stacks"),
    [(True, "none", 1, True), (False, "full", 2, False)],
)
def test_on_a_cpu_no_stack_of_layers_is_made_where_they_are_not_scanned(
    scan_layers, policy, microbatches, stacks
):
    """Neither of weights nor of gradients: each would be a copy of all layers."""
    sizes = {"embed_dim": 24, "mlp_dim": 40, "num_encoder_layers": 6, "num_decoder_layers": 2}
    model = tiny_model(group_size=8, scan_layers=scan_layers, remat_policy=policy, **sizes)
    config = tiny_config(model, mesh=MeshConfig(1, 1, 1), num_microbatches=microbatches)
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        compiled = lower_train_step(config, mesh, abstract_state(config, mesh)).compile()
    # Three blocks in the encoder: [3, E, D, F] of the experts, [3, D, F] of the dense layers.
    assert [shape in compiled.as_text() for shape in ("[3,4,24,40]", "[3,24,40]")] == [stacks] * 2


def test_the_step_lowers_for_gpus():
    """With the exchanges of experts, products in the activations' dtype, and no kernel of TPUs."""
    model = tiny_model(
        group_size=8, activation_dtype="bfloat16", dropout_rate=0.1, jitter_noise=0.01
    )
    config = tiny_config(model, mesh=MeshConfig(2, 2, 2), num_microbatches=2)
    mesh = make_mesh(config.mesh)
    state = abstract_state(config, mesh)
    step = make_train_step(
        config, make_optimizer(config), jax.tree.map(lambda s: s.sharding, state.parameters)
    )
    with jax.set_mesh(mesh):
        traced = jax.jit(step).trace(state, abstract_batch(config, mesh), abstract_signals(mesh))
        program = traced.lower(lowering_platforms=("cuda",)).as_text()
    assert "stablehlo.all_to_all" in program and "tpu_custom_call" not in program
    products = [line for line in program.splitlines() if "stablehlo.dot_general" in line]
    assert sum("xbf16>, tensor" in line for line in products) > 20


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


@pytest.mark.parametrize("split", [False, True])
def test_all_to_alls_are_split_where_the_compiler_can_do_that(monkeypatch, split):
    monkeypatch.setattr(lowering, "platform", lambda: "tpu")
    monkeypatch.setattr(lowering, "has_async_all_to_all", lambda: split)
    info = types.SimpleNamespace(vmem_capacity_bytes=128 * 2**20)
    monkeypatch.setattr(lowering.pltpu, "get_tpu_info", lambda: info)
    assert compiler_options().get("xla_tpu_enable_async_all_to_all", False) is split


def test_cpus_get_no_options_of_tpus():
    with jax.set_mesh(make_mesh(MeshConfig(1, 1, 1))):
        assert compiler_options() == {}
