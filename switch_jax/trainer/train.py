"""A run from its start to its end: prepare, restore, compile, train."""

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax

from switch_jax.checkpointing import Checkpoints, lock_run
from switch_jax.config import Config
from switch_jax.data.reading.prefetch import Prefetch
from switch_jax.data.train_batches import TrainBatches
from switch_jax.evaluation.task_metrics import DecodingEvaluation
from switch_jax.evaluation.teacher_forced import TeacherForcedEvaluation
from switch_jax.inference.predictor import Predictor
from switch_jax.inference.trained_model import decoding_config
from switch_jax.partitioning.placing import rows_on_this_host
from switch_jax.run_folder import create_run_folder, write_description
from switch_jax.runtime.host_memory import return_freed_memory
from switch_jax.runtime.multihost import barrier, is_first, run_on_all, run_on_first
from switch_jax.runtime.open_files import raise_limit_of_open_files
from switch_jax.train_step.lowering import lower_train_step
from switch_jax.train_step.state import TrainState
from switch_jax.trainer.device_batches import device_batches
from switch_jax.trainer.instruments import Instruments, closed_by
from switch_jax.trainer.loop import Compiled, TrainingLoop
from switch_jax.trainer.signals import StopSignals
from switch_jax.trainer.start.announcement import announcement, beginning, nothing_to_do
from switch_jax.trainer.start.prepare import Prepared, prepare
from switch_jax.trainer.start.restore import RunState, restore
from switch_jax.trainer.start.run_json import run_json_fields
from switch_jax.trainer.start.state_memory import describe_memory
from switch_jax.trainer.status_file import StatusFile


def train(config: Config, config_text: str | None = None, change_task: bool = False) -> TrainState:
    """Trains from the newest checkpoint in the run's folder, or from the start, to the last step.

    A run that was stopped and started again gives the same parameters as one that was not, bit for
    bit on the same mesh: the data continue with the very next batch, whatever hosts and devices
    there are now, and noise depends only on the seed and the step. With several processes all of
    them call this.

    Args:
      config: the run.
      config_text: the config as gin text with its macros, which is written to the run's folder as
        `config.gin`; None: `config.as_gin()`.
      change_task: see `prepare`.

    Raises:
      UserError: something in the config does not fit together, the folder is in use or cannot be
        written, or bad steps would not end.
      Stopped: SIGTERM, SIGHUP or SIGINT came; the state is saved.
    """
    if config_text is None:
        config_text = config.as_gin()
    raise_limit_of_open_files()
    prepared = prepare(config, change_task)
    for line in describe_memory(prepared):  # before any is allocated
        if is_first():
            print(line, flush=True)
    folder = run_on_all(lambda: create_run_folder(config.run.model_dir))
    with contextlib.ExitStack() as closing, jax.set_mesh(prepared.mesh):
        lock = run_on_first(lambda: lock_run(folder))
        if lock is not None:
            closing.callback(lock.close)
        status = closing.enter_context(run_on_all(lambda: StatusFile(folder, active=is_first())))
        checkpoints = Checkpoints(
            folder,
            config.run.keep_checkpoints,
            config.run.keep_best_checkpoints,
            config.run.keep_set_aside_checkpoints,
        )
        closing.push(closed_by(checkpoints.close))
        run = restore(prepared, checkpoints)
        return_freed_memory()
        if run.is_over(config):
            if is_first():
                print(nothing_to_do(prepared, run.step))
            return run.state
        run_on_first(
            lambda: write_description(
                folder,
                run_json_fields(config, prepared.mesh, prepared.teacher),
                None if prepared.start is None else prepared.start.path,
                config,
                config_text,
            )
        )
        instruments = closing.enter_context(Instruments(config, folder, run.step, config_text))
        for line in (
            *announcement(config, prepared.mesh),
            *beginning(prepared, run if checkpoints.steps() else None),
            "reading data and compiling",
        ):
            instruments.progress.say(line)
        compiled = closing.enter_context(compile_run(prepared, run, instruments))
        stop = closing.enter_context(StopSignals(prepared.mesh, instruments.profiler.request))
        status.running()
        loop = TrainingLoop(prepared, run, checkpoints, instruments, compiled, stop)
        return loop.train()


@contextlib.contextmanager
def compile_run(prepared: Prepared, run: RunState, instruments: Instruments) -> Iterator[Compiled]:
    """Compiles, while the first batches are read; stops reading at the end."""
    config, mesh = prepared.config, prepared.mesh
    evaluation = infer_evaluation = None
    with contextlib.ExitStack() as closing:
        with instruments.goodput.spend("compile"):
            validation, abstract = prepared.validation_tasks, prepared.state
            if validation is not None:
                num_batches = config.run.eval_steps
                evaluation = TeacherForcedEvaluation(
                    config, mesh, abstract.parameters, validation, num_batches
                )
                if config.run.infer_eval:
                    predictor = Predictor(config, mesh, decoding_config(config.data))
                    num_examples = num_batches * config.run.batch_size
                    infer_evaluation = DecodingEvaluation(predictor, validation, num_examples)
            rows = rows_on_this_host(mesh, config.run.batch_size)
            batches = TrainBatches(
                prepared.train_tasks, config.model.stacks, config.run.batch_size, run.position, rows
            )
            prefetch = Prefetch(device_batches(batches, mesh))
            closing.callback(prefetch.close)
            train_step: Any = lower_train_step(config, mesh, abstract).compile()
            if prepared.teacher is not None and config.teacher_model is not None:
                train_step = functools.partial(train_step, teacher=prepared.teacher.load())
            barrier("compiled")
        instruments.watchdog.alive()
        return_freed_memory()
        yield Compiled(train_step, evaluation, infer_evaluation, prefetch)
