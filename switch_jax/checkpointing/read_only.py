"""Reads checkpoints of a run that may still be training, and writes nothing to its folder."""

import os
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from etils import epath

from switch_jax.checkpointing import orbax_patches
from switch_jax.checkpointing.integrity import Shapes, check_model, shapes_of, try_to_read
from switch_jax.checkpointing.metadata import (
    ARRAYS,
    describe,
    load_arrays,
    newest_notes,
    saved_metric,
    shapes_and_notes,
)
from switch_jax.checkpointing.preservation import comparable
from switch_jax.run_folder import RunFolder
from switch_jax.runtime.multihost import from_first, gather, run_on_all
from switch_jax.storage import is_folder, missing_model, storage_path
from switch_jax.utils.errors import FieldError, UserError
from switch_jax.utils.fields import short_repr

Parameters = TypeVar("Parameters")


class Saved(NamedTuple):
    """A saved checkpoint: its step, the shapes of its arrays by path, the notes of `save`."""

    step: int
    shapes: Shapes
    notes: dict[str, Any]


def best_step(model_dir: str | os.PathLike[str]) -> int:
    """Finds the step of the checkpoint with the largest BEST_METRIC, the earliest among equals.

    If the run has changed what that measures, the checkpoints since then count. Raises UserError if
    no checkpoint was saved at a step with an evaluation.
    """
    folder = RunFolder.at(model_dir)
    steps = from_first(folder.checkpoint_steps)
    # A damaged one is None.
    known = comparable({s: try_to_read(saved_metric, folder.checkpoint(s))[0] for s in steps})
    if not known:
        raise UserError(
            f"{model_dir} has no checkpoint that was saved at a step with an evaluation, so none "
            "is known to be the best: take the latest, or name a step"
        )
    return max(known, key=known.__getitem__)


def chosen_step(model_dir: str | os.PathLike[str], checkpoint: str) -> int:
    """Finds the step that `checkpoint` stands for: 'latest', 'best' (see `best_step`), or a step.

    Raises FieldError if it is none of these, UserError if there is no such checkpoint.
    """
    if checkpoint == "best":
        return best_step(model_dir)
    if checkpoint == "latest":
        return int(find_checkpoint(model_dir).name)
    if not checkpoint.isdecimal() or len(checkpoint) > 15:
        raise FieldError(
            "checkpoint", f"= {short_repr(checkpoint)}: write latest, best, or the number of a step"
        )
    return int(find_checkpoint(model_dir, int(checkpoint)).name)


def find_checkpoint(path: str | os.PathLike[str], step: int | None = None) -> epath.Path:
    """Finds the folder of a checkpoint, the same on every process; UserError if there is none.

    `path` is a run's folder, with the newest as the default `step`, or MODEL_DIR/checkpoints/STEP.
    """
    first, *_ = gather(run_on_all(lambda: str(_found(path, step))))
    return epath.Path(first)


def newest_saved(folder: RunFolder) -> Saved | None:
    """Describes the newest checkpoint that can be read; all processes call this together.

    Raises UserError if the folder cannot be read, TransientError if the storage failed.
    """
    for step in reversed(gather(run_on_all(folder.checkpoint_steps))[0]):
        saved, _ = try_to_read(shapes_and_notes, folder.checkpoint(step))
        if saved is not None:
            shapes, notes = saved
            # A start that goes on with it says what is damaged when it restores the state.
            notes = newest_notes(folder.metadata_override(step), step, notes, say_damage=False)
            return Saved(step, shapes, notes)
    return None


def load_parameters(
    path: str | os.PathLike[str], abstract_parameters: Parameters, step: int | None = None
) -> Parameters:
    """Reads a checkpoint's parameters alone, onto any mesh; all processes call this together.

    This neither locks nor changes the folder, whose run may be training. `path` and `step` are as
    for `find_checkpoint`; `abstract_parameters` are `ShapeDtypeStruct`s with shardings. Raises
    UserError if there is no checkpoint, or it is damaged or of another model; TransientError if the
    storage failed.
    """
    checkpoint = find_checkpoint(path, step)
    check_part(checkpoint, "parameters", abstract_parameters)
    return load_parts(checkpoint, {"parameters": abstract_parameters})["parameters"]


def load_parts(checkpoint: epath.Path, abstract_parts: dict[str, Any]) -> dict[str, Any]:
    """Reads parts of the training state by name; their shapes have been checked."""
    return _read(checkpoint, lambda: load_arrays(checkpoint, abstract_parts))


def check_part(checkpoint: epath.Path, name: str, abstract: Any) -> None:
    """Checks that a part of the state in a checkpoint has the shapes of `abstract`.

    `name` is a field of `TrainState`. Raises UserError if it has other shapes or is damaged,
    TransientError if the storage failed.
    """
    saved = part_shapes(checkpoint, name)
    if not saved:
        raise UserError(f"the checkpoint {checkpoint} has no {name}, but parameters alone")
    remedy = "take its run's config, or another checkpoint"
    check_model(saved, shapes_of(abstract), f"the checkpoint {checkpoint}", remedy)


def part_shapes(checkpoint: epath.Path, name: str) -> Shapes:
    """Reads the shapes of a part of the state, empty if there is none; see `check_part`."""
    orbax_patches.apply()
    arrays = _read(checkpoint, lambda: describe(checkpoint))
    return shapes_of(arrays.get(name))


def _found(path: str | os.PathLike[str], step: int | None) -> epath.Path:
    given = storage_path(path)
    if not is_folder(given):
        raise missing_model(path)
    if step is None and is_folder(given / ARRAYS):
        return given
    folder = RunFolder(given)
    steps = folder.checkpoint_steps()
    if not steps:
        raise UserError(
            f"{path} has no checkpoint: give the MODEL_DIR of a run that has saved one, or "
            "MODEL_DIR/checkpoints/STEP"
        )
    if step is not None and step not in steps:
        known = ", ".join(map(str, steps))
        raise UserError(f"{path} has no checkpoint of step {step}: there are {known}")
    return folder.checkpoint(steps[-1] if step is None else step)


def _read(checkpoint: epath.Path, read: Callable[[], Any]) -> Any:
    """Calls a function that reads a checkpoint; raises UserError if the checkpoint is damaged."""
    found, damage = try_to_read(read)
    if damage is not None:
        raise UserError(
            f"the checkpoint {checkpoint} cannot be read ({damage}): it is damaged, or its run has "
            "removed it; nothing was changed there; choose another one"
        )
    return found
