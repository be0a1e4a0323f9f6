"""Runs of a tiny model, and what their records say."""

import dataclasses
import json

import jax
import numpy as np

from switch_jax.config import (
    Config,
    DataConfig,
    GuardConfig,
    MeshConfig,
    OptimizerConfig,
    RunConfig,
)
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.state import abstract_state
from switch_jax.trainer.start import restore
from switch_jax.trainer.start.teacher import find_teacher
from switch_jax.trainer.start.warm_start import find_start
from switch_jax.trainer.train import train
from tests.trainer import tiny_task  # noqa: F401  registers it
from tests.trainer.helpers import tiny_model

DATA = DataConfig("tiny_copy", {"inputs": 32, "targets": 16}, data_streams=2)
MODEL = tiny_model(num_embeddings=1152, sparse_step=1, num_encoder_layers=1, num_decoder_layers=1,
                   group_size=64, dropout_rate=0.1, scan_layers=False)  # fmt: skip
DENSE = dataclasses.replace(MODEL, num_experts=0)
# A few steps change the parameters, and two bad ones send a run back. Runs with the same model,
# optimiser and guard share their programs, see conftest.
FAST = OptimizerConfig(learning_rate=0.1, warmup_steps=1, lr_schedule="constant")
IMPATIENT = GuardConfig(spike_window=4, max_bad_steps=2)


def config_of(folder, steps=3, mesh=(1, 1, 1), model=MODEL, data=DATA, **changes):
    """A run in a folder; `changes`: fields of its RunConfig, or whole parts of Config."""
    names = {field.name for field in dataclasses.fields(Config)} & changes.keys()
    parts = {"optimizer": OptimizerConfig(warmup_steps=100)}
    parts |= {name: changes.pop(name) for name in names}
    run = RunConfig(str(folder), train_steps=steps, batch_size=8, **changes)
    return Config(run, model, data, MeshConfig(*mesh), **parts)


def train_tiny(folder, steps, mesh=(1, 2, 1), **changes):
    periods = {"log_period": 2, "eval_period": 3, "eval_steps": 1, "checkpoint_period": 3}
    config = config_of(folder, steps, mesh, **{"guard": IMPATIENT, **periods, **changes})
    return train(config, "# config\n")


def records_of(folder, kind):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


def step_hashes(folder):
    """Of the batches, in the order in which steps took them."""
    return [int(h, 16) for r in records_of(folder, "train") for h in r["batch_hashes"].split()]


def start_of(config):
    """The weights that a run starts from, as `find_start` finds them."""
    mesh = make_mesh(config.mesh)
    return find_start(config, mesh, find_teacher(config, mesh))


def first_state(config):
    """The state before the first step of a run, which lies where it should; as NumPy arrays."""
    abstract = abstract_state(config, make_mesh(config.mesh))
    state = restore.initial_state(config, abstract, start_of(config))  # drawn once, see conftest
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda s: s.sharding, abstract)
    return jax.device_get(state)


def bits(tree):
    """The bytes of each array."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
