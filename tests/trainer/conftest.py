"""Runs that differ in nothing that their programs depend on share these programs.

So do runs that begin with the same parameters share what was drawn.

A run that is stopped and started again would trace and compile them twice. A real
process has its own, as in test_chaos.py.
"""

import types

import jax
import numpy as np
import pytest

from switch_jax.data.train_batches import TrainBatches
from switch_jax.evaluation import teacher_forced
from switch_jax.trainer import train as train_module
from switch_jax.trainer.start import restore
from tests.trainer.tiny_runs import train_tiny
from tests.trainer.worker_processes import SMALL, run_here


@pytest.fixture(autouse=True, scope="package")
def programs():
    """The compiled programs of these tests by what they depend on."""
    with pytest.MonkeyPatch.context() as patch:
        compiled = {}
        for module, name, settings in (
            (train_module, "lower_train_step", _of_training),
            (teacher_forced, "lower_eval_step", lambda config: ()),
        ):
            patch.setattr(module, name, _once(compiled, getattr(module, name), settings))
        patch.setattr(restore, "initial_state", _drawn_once({}, restore.initial_state))
        yield compiled


def _of_training(config):
    """What a training step depends on, and an evaluation does not."""
    end = config.run.train_steps if config.lr_decay_steps else None
    return (
        end, config.run.random_seed, config.optimizer, config.loss, config.guard,
        config.distillation, config.teacher_model,
    )  # fmt: skip


def _once(compiled, lower, settings):
    def lower_once(config, mesh, shapes, *rest):
        run = config.run
        key = repr((  # with jax.jit, which a test may replace by one with other options
            lower.__name__, jax.jit, jax.tree.structure(shapes), run.batch_size,
            run.num_microbatches, config.model, config.data.task_feature_lengths, config.mesh,
            settings(config), [array.tobytes() for array in rest],
        ))  # fmt: skip
        if key not in compiled:
            compiled[key] = lower(config, mesh, shapes, *rest).compile()
        return types.SimpleNamespace(compile=lambda: compiled[key])

    return lower_once


def _drawn_once(drawn, draw):
    def initial_state(config, abstract, start):
        if start is not None:
            return draw(config, abstract, start)
        key = repr((
            jax.jit, config.run.random_seed, config.model, config.mesh, config.optimizer,
            config.guard,
        ))  # fmt: skip
        if key not in drawn:
            drawn[key] = jax.device_get(draw(config, abstract, None))
        copies = jax.tree.map(np.array, drawn[key])  # a step writes over what it is given
        return jax.device_put(copies, jax.tree.map(lambda s: s.sharding, abstract))

    return initial_state


@pytest.fixture
def at_each_batch(monkeypatch):
    """at_each_batch(act): calls act(batch, number from 1) before a batch is given to the run."""

    def patch(act):
        class Batches(TrainBatches):
            def __next__(self):
                batch, position = super().__next__()
                act(batch, position.batches)
                return batch, position

        monkeypatch.setattr(train_module, "TrainBatches", Batches)

    return patch


@pytest.fixture(scope="package")
def whole(tmp_path_factory):
    """A run of 6 steps that was never stopped, with a trace of two; and its final state."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, train_tiny(folder, 6, profile_steps=(2, 3))


@pytest.fixture(scope="package")
def alone(tmp_path_factory):
    """A run as real processes do it, of 24 steps, in this process and never stopped."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    run_here(folder, SMALL, "--gin.TRAIN_STEPS=24")
    return folder
