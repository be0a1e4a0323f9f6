import dataclasses

import jax

from switch_jax.config import DistillationConfig, MeshConfig
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.lowering import abstract_batch, abstract_signals, lower_train_step
from switch_jax.train_step.state import abstract_model, abstract_state
from switch_jax.train_step.step import make_train_step
from tests.trainer.helpers import tiny_config, tiny_model

ONE_LAYER = {"num_encoder_layers": 1, "num_decoder_layers": 1, "sparse_step": 1}  # of experts
MODEL = tiny_model(group_size=8, **ONE_LAYER)
CONFIG = tiny_config(
    MODEL,
    mesh=MeshConfig(2, 4, 1),
    distillation=DistillationConfig("teacher"),
    teacher=tiny_config(dataclasses.replace(MODEL, num_experts=8)),
)


def test_the_step_takes_what_training_gives_it_and_gives_back_its_state():
    mesh = make_mesh(CONFIG.mesh)
    state = abstract_state(CONFIG, mesh)
    with jax.set_mesh(mesh):
        lowered = lower_train_step(CONFIG, mesh, state)
    new_state, metrics = lowered.out_info
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), new_state)
    assert shapes == jax.tree.map(lambda x: (x.shape, x.dtype), state)
    assert metrics.loss.shape == () and metrics.routers["encoder"].load.shape == (1, 4)
    (given, _, _), named = lowered.args_info
    assert all(a.donated for a in jax.tree.leaves(given))
    # A teacher stays as it is.
    teacher = jax.tree.map(lambda a: (a.shape, a.donated), named["teacher"])
    expected = abstract_model(CONFIG.teacher_model, CONFIG.mesh, mesh)
    assert teacher == jax.tree.map(lambda s: (s.shape, False), expected)


def test_the_step_lowers_for_gpus():
    """With the exchanges of experts, products in the activations' dtype, and no kernel of TPUs."""
    model = dataclasses.replace(
        MODEL, activation_dtype="bfloat16", dropout_rate=0.1, jitter_noise=0.01
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
