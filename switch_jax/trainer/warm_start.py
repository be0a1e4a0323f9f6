"""Warm start: a new run begins with the parameters of a checkpoint, of ours or Hugging Face's."""

from pathlib import Path
from typing import Any

import jax

from switch_jax.checkpointing import find_checkpoint, load_parameters
from switch_jax.checkpointing.read_only import check_parameters
from switch_jax.config import Config
from switch_jax.conversion import hugging_face
from switch_jax.errors import UserError
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.paths import local_path
from switch_jax.run_folder import RunFolder
from switch_jax.runtime.processes import run_on_all
from switch_jax.train_step.state import TrainState, fresh_state, init_state


def find_warm_start(config: Config, abstract_parameters: Any) -> Path | None:
    """The checkpoint whose parameters a run starts from, checked before anything is written.

    Call it once a start: the other run may save a newer checkpoint in the meantime.

    Args:
      config: of a run with or without `initial_checkpoint_path`.
      abstract_parameters: nested `ShapeDtypeStruct`s.

    Returns:
      A checkpoint's folder, or Hugging Face's. None where the run starts from scratch, or goes on
      from a checkpoint of its own.

    Raises:
      UserError: no checkpoint is there, it is damaged or of another model, or it is the run's own.
    """
    run, start = config.run, config.run.initial_checkpoint_path
    if start is None:
        return None
    own, given = run_on_all(
        lambda: (
            local_path(run.model_dir, "MODEL_DIR").resolve(),
            local_path(start, "INITIAL_CHECKPOINT_PATH").resolve(),
        )
    )
    if own == given or RunFolder(own).checkpoints == given.parent:
        raise UserError(
            f"INITIAL_CHECKPOINT_PATH {start!r} is of MODEL_DIR itself: write "
            "another MODEL_DIR to start a new run from it, or leave INITIAL_CHECKPOINT_PATH at "
            "None to go on with that run"
        )
    if run_on_all(RunFolder(own).checkpoint_steps):
        return None
    if run_on_all(lambda: hugging_face.is_hugging_face(given)):
        run_on_all(lambda: hugging_face.open_for_model(given, config.model))
        return given
    found = find_checkpoint(start)
    check_parameters(found, abstract_parameters)
    return found


def describe_warm_start(checkpoint: Path) -> str:
    """How the log names a checkpoint that a run starts from."""
    if hugging_face.is_hugging_face(checkpoint):
        return f"{checkpoint}, {hugging_face.class_name(checkpoint)} of Hugging Face"
    return str(checkpoint)


def initial_state(config: Config, abstract: TrainState, checkpoint: Path | None) -> TrainState:
    """The state of a run before its first step, laid out as `abstract`.

    Args:
      config: the run.
      abstract: shapes, dtypes and shardings.
      checkpoint: its parameters are taken; None: they are drawn from the run's seed.

    Raises:
      UserError: the checkpoint cannot be read.
    """
    shardings = jax.tree.map(lambda s: s.sharding, abstract)
    transformation = make_optimizer(config)
    if checkpoint is not None:
        start = jax.jit(
            lambda parameters: fresh_state(config, transformation, parameters),
            donate_argnums=0,
            out_shardings=shardings,
        )
        if hugging_face.is_hugging_face(checkpoint):
            return start(
                hugging_face.load_parameters(checkpoint, config.model, abstract.parameters)
            )
        return start(load_parameters(checkpoint, abstract.parameters))
    init = jax.jit(lambda key: init_state(config, transformation, key), out_shardings=shardings)
    # Steps fold their number into the same key: this is one that no run reaches.
    return init(jax.random.fold_in(jax.random.key(config.run.random_seed), 2**32 - 1))
