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
from tests.trainer.shared import Shared
from tests.trainer.tiny_runs import train_tiny
from tests.trainer.worker_processes import SMALL, run_here


@pytest.fixture(autouse=True, scope="package")
def programs():
    """The compiled programs of these tests by what they depend on."""
    shared = Shared()
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (train_module, "lower_train_step"),
            (teacher_forced, "lower_eval_step"),
        ):
            patch.setattr(module, name, _compiled_once(shared, getattr(module, name)))
        patch.setattr(restore, "initial_state", _drawn_once(shared, restore.initial_state))
        yield


def _compiled_once(shared, lower):
    def compiled(*arguments):
        return lower(*arguments).compile()

    def lower_once(config, mesh, shapes, *rest):
        # jax.jit: a test may replace it by one with other options.
        key = (jax.jit, jax.tree.structure(shapes), [array.tobytes() for array in rest])
        program = shared.get(compiled, config, mesh, shapes, *rest, key=key)
        return types.SimpleNamespace(compile=lambda: program)

    return lower_once


def _drawn_once(shared, draw):
    def drawn(*arguments):
        return jax.device_get(draw(*arguments))

    def initial_state(config, abstract, start):
        if start is not None:
            return draw(config, abstract, start)
        state = shared.get(drawn, config, abstract, None, key=jax.jit)
        copies = jax.tree.map(np.array, state)  # a step writes over what it is given
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
