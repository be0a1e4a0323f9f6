"""Runs of a tiny model, and what their records say."""

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
from switch_jax.trainer.start.teacher import find_teacher
from switch_jax.trainer.start.warm_start import find_start, initial_state
from switch_jax.trainer.train import train
from tests.trainer import tiny_task  # noqa: F401  registers it
from tests.trainer.helpers import tiny_model

DATA = DataConfig("tiny_copy", {"inputs": 32, "targets": 16}, data_streams=2)
MODEL = tiny_model(num_embeddings=1152, sparse_step=1, num_encoder_layers=1, num_decoder_layers=1,
                   group_size=64, dropout_rate=0.1, scan_layers=False)  # fmt: skip


def train_tiny(folder, steps, mesh=(1, 2, 1), model=MODEL, data=DATA, guard=None, **changes):
    periods = {"log_period": 2, "eval_period": 3, "eval_steps": 1, "checkpoint_period": 3}
    guard = guard or GuardConfig()
    run = RunConfig(str(folder), train_steps=steps, batch_size=8, **{**periods, **changes})
    optimizer = OptimizerConfig(warmup_steps=100)
    text = f"# config\nSPIKE_WINDOW = {guard.spike_window}\n"
    return train(Config(run, model, data, MeshConfig(*mesh), optimizer, guard=guard), text)


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
    state = initial_state(config, abstract, start_of(config))
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda s: s.sharding, abstract)
    return jax.device_get(state)


def bits(tree):
    """The bytes of each array."""
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]
