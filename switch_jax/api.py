"""switch_jax from Python: what the commands do, as functions; each leaves gin as it was."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

import jax

from switch_jax import gin_config
from switch_jax.config import Config
from switch_jax.evaluation.evaluate import evaluate_checkpoints
from switch_jax.gin_config.teacher import with_teacher
from switch_jax.inference.input_records import check_texts
from switch_jax.inference.interactive import InteractiveModel
from switch_jax.inference.routing import route
from switch_jax.inference.trained_model import decoding_config, open_folder, prepare_model
from switch_jax.runtime.multihost import run_on_all
from switch_jax.trainer.status_file import record_early_failure
from switch_jax.trainer.train import train as train_run
from switch_jax.utils import imports
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import short_repr

__all__ = ["evaluate", "load", "load_config", "route", "train"]


def load_config(
    gin_files: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    gin_bindings: Sequence[str] = (),
) -> Config:
    """Reads the config of a run from gin files and bindings; later ones win.

        config = switch_jax.load_config(
            ["models/switch_base.gin", "runs/pretrain.gin"],
            ["MODEL_DIR=runs/base", "MIXTURE_OR_TASK_NAME=english_span_corruption"],
        )

    Args:
      gin_files: one or several, of the current directory or of those that come with switch_jax.
      gin_bindings: macros and fields to set, as ["TRAIN_STEPS=100"].

    Raises:
      UserError: a file is missing or is no gin, a name is unknown, or a value is missing or out of
        range.
    """
    if isinstance(gin_files, str | os.PathLike):
        gin_files = [gin_files]
    elif not isinstance(gin_files, Sequence):
        raise UserError(f"gin_files = {short_repr(gin_files)}: write a path, or a list of paths")
    check_texts("gin_bindings", gin_bindings)
    return gin_config.read(list(map(str, gin_files)), gin_bindings).config


def train(config: Config, *, change_task: bool = False) -> None:
    """Trains to the last step, from the newest checkpoint in the run's folder or from the start.

        config = switch_jax.load_config("runs/demo_switch.gin", ["MODEL_DIR=runs/mine"])
        switch_jax.train(config)

    It prints and writes what `switch_jax train` does: `config.run.model_dir` has the checkpoints
    and the records. With several processes, which `jax.distributed.initialize` has connected, all
    of them call this, with the same config.

    Args:
      config: of the run; the modules in `config.imports` are imported.
      change_task: whether it may have another MIXTURE_OR_TASK_NAME than the run in its folder, or
        other data files.

    Raises:
      UserError: something in the config does not fit together, the folder is in use or cannot be
        written, or bad steps would not end.
      Stopped: Ctrl-C, SIGTERM or SIGHUP came. The state is saved: the same call goes on.
    """
    if not isinstance(config, Config):
        raise UserError(
            f"config is of type {type(config).__name__}: make one with switch_jax.load_config or "
            "switch_jax.Config"
        )

    def read() -> Config:
        for module in config.imports:
            imports.import_module(module)
        return with_teacher(config)

    with record_early_failure(config.run.model_dir):
        whole = run_on_all(read) if jax.distributed.is_initialized() else read()
        train_run(whole, change_task=change_task)


def evaluate(
    path: str | os.PathLike[str],
    task: str | None = None,
    checkpoint: str | int = "latest",
    *,
    split: str = "validation",
    max_examples: int | None = None,
    batch_size: int | None = None,
    gin_bindings: Sequence[str] = (),
    **decoding: Any,
) -> list[dict[str, Any]]:
    """Evaluates checkpoints of a run on a task, as `switch_jax eval`.

        for record in switch_jax.evaluate("runs/tuned", "squad_v010_allanswers"):
            print(record["step"], record["task"], record["kind"], record["metrics"])

    Args:
      path: the MODEL_DIR of a run; the results are written to its folder `eval`, too.
      task: name of a task or a mixture; None: the run's.
      checkpoint: 'latest', 'best', 'all', or a step.
      split: of the task.
      max_examples: decode only this many examples of each task, the first ones; None: all. The
        targets are scored on this many rows. With PACK a row holds several examples.
      batch_size: number of examples that are computed together; None: BATCH_SIZE of the config.
      gin_bindings: changes of the config, as in ["MESH_DATA=1"].
      decoding: keywords of `InteractiveModel.generate`, as in num_beams=4.

    Returns:
      The records that docs/run_folder.md describes. Of each checkpoint and task there is one of
      kind 'teacher_forced', whose "metrics" are of the given targets ('neg_log_perplexity',
      'accuracy'); if the task has metrics, one of kind 'generated' with their values; and if
      several have, one with their 'average'. A score that is in `eval` already is not computed
      again.

    Raises:
      UserError: there is no such run, task or checkpoint, an option is out of range, or the config
        does not fit this machine.
    """
    check_texts("gin_bindings", gin_bindings)
    folder = open_folder(path, gin_bindings=gin_bindings)
    model = prepare_model(folder, task=task, split=split, batch_size=batch_size)
    options = decoding_config(model.config.data, **decoding)
    return evaluate_checkpoints(model, options, str(checkpoint), max_examples)


def load(
    path: str | os.PathLike[str],
    checkpoint: str | int = "latest",
    *,
    batch_size: int | None = None,
    gin_bindings: Sequence[str] = (),
) -> InteractiveModel:
    """Loads a model onto this machine's devices.

        model = switch_jax.load("runs/tuned")
        model.generate(["trivia_qa question: ..."])
        model.score(["..."], ["..."])

    Args:
      path: the MODEL_DIR of a run, the folder of a Hugging Face model, or a T5X checkpoint.
      checkpoint: of a run: 'latest', 'best', or a step.
      batch_size: number of texts that are computed together; None: BATCH_SIZE of the config.
      gin_bindings: changes of the config, as in ["MESH_DATA=1"].

    Raises:
      UserError: there is no such model, or its config does not fit this machine.
    """
    check_texts("gin_bindings", gin_bindings)
    folder = open_folder(path, gin_bindings=gin_bindings)
    if folder.note:
        warnings.warn(folder.note, stacklevel=2)
    model = prepare_model(folder, batch_size=batch_size)
    return InteractiveModel(model, model.chosen_step(str(checkpoint)))
