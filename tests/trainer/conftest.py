"""Runs of a file that differ in nothing that their programs depend on share these programs.

A run that is stopped and started again would trace and compile them twice. Real processes do, as in
test_chaos.py.
"""

import types

import jax
import pytest

from switch_jax.evaluation import teacher_forced
from switch_jax.trainer import train as train_module


@pytest.fixture(autouse=True, scope="module")
def programs():
    """The compiled programs of the file by what they depend on."""
    with pytest.MonkeyPatch.context() as patch:
        compiled = {}
        for module, name in (train_module, "lower_train_step"), (teacher_forced, "lower_eval_step"):
            patch.setattr(module, name, _once(compiled, getattr(module, name)))
        yield compiled


def _once(compiled, lower):
    def lower_once(config, mesh, shapes, *rest):
        run = config.run
        end = run.train_steps if config.lr_decay_steps else None
        key = repr((
            lower.__name__, jax.jit, end, run.batch_size, run.num_microbatches, run.random_seed,
            config.model, config.data.task_feature_lengths, config.mesh, config.optimizer,
            config.loss, config.guard, config.distillation, config.teacher_model,
            [array.tobytes() for array in rest],
        ))  # fmt: skip
        if key not in compiled:
            compiled[key] = lower(config, mesh, shapes, *rest).compile()
        return types.SimpleNamespace(compile=lambda: compiled[key])

    return lower_once
