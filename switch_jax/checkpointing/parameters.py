"""The parameters of a run that may still be going on: read, with nothing written to its folder."""

import math
from pathlib import Path
from typing import Any, TypeVar

from orbax.checkpoint import v1 as ocp

from switch_jax.checkpointing import orbax_patches
from switch_jax.checkpointing.description import (
    Shapes,
    check_model,
    read_descriptions,
    shapes_of,
    tried,
    unpacked,
)
from switch_jax.errors import UserError
from switch_jax.paths import local_path
from switch_jax.runtime.processes import gather, run_on_all

Parameters = TypeVar("Parameters")

_ARRAYS = "state"  # Orbax's folder for them, inside a checkpoint's


def saved_steps(model_dir: str | Path) -> list[int]:
    """Steps of a run's complete checkpoints, ascending; empty where there is no such folder."""
    folders = (local_path(model_dir) / "checkpoints").glob("*")
    return sorted(int(folder.name) for folder in folders if folder.name.isdecimal())


def best_step(model_dir: str | Path) -> int:
    """The step of the checkpoint that BEST_METRIC of its run was best at.

    Raises:
      UserError: no checkpoint goes with an evaluation.
    """
    folder = local_path(model_dir) / "checkpoints"
    values = {step: _value(folder / str(step)) for step in gather(saved_steps(model_dir))[0]}
    known = {s: v for s, v in values.items() if v is not None and not math.isnan(v)}
    if not known:
        raise UserError(
            f"{model_dir} has no checkpoint that was saved at a step with an evaluation, so none "
            "is known to be the best: take the latest, or name a step"
        )
    return max(known, key=known.__getitem__)


def commit_time(checkpoint: Path) -> int:
    """When it was saved, in nanoseconds: another checkpoint of the same step has another.

    Raises:
      UserError: it cannot be read.
    """
    saved, reason = tried(lambda: ocp.metadata(checkpoint, _ARRAYS).commit_timestamp_nsecs)
    if saved is None:
        raise UserError(_damaged(checkpoint, reason or "it does not say when it was saved"))
    return saved


def find_checkpoint(path: str | Path, step: int | None = None) -> Path:
    """The folder of a checkpoint, the same one on every process.

    Args:
      path: a run's folder, MODEL_DIR, or one of its checkpoints, MODEL_DIR/checkpoints/STEP.
      step: which of the run's; None = the newest.

    Raises:
      UserError: it is not there.
    """
    first, *_ = gather(run_on_all(lambda: str(_found(path, step))))
    return Path(first)


def load_parameters(
    path: str | Path, abstract_parameters: Parameters, step: int | None = None
) -> Parameters:
    """Reads a checkpoint's parameters alone, onto any mesh and any number of processes.

    No lock is taken and nothing changes in the folder: it may be of another run, which may be
    going on. With several processes all of them call this.

    Args:
      path, step: see `find_checkpoint`.
      abstract_parameters: nested dict of `ShapeDtypeStruct`s with shardings, as the `parameters` of
        `training.state.abstract_state`.

    Returns:
      Arrays of those shapes, dtypes and shardings.

    Raises:
      UserError: there is no checkpoint, it is damaged, or it is of another model; names the first
        arrays that differ.
      TransientError: the storage failed.
    """
    checkpoint = find_checkpoint(path, step)
    check_parameters(checkpoint, abstract_parameters)
    parameters, reason = tried(_read, checkpoint, abstract_parameters)
    if reason is not None:
        raise UserError(_damaged(checkpoint, reason))
    return parameters


def check_parameters(checkpoint: Path, abstract_parameters: Any) -> None:
    """Compares shapes with those that a checkpoint says it has; raises as `load_parameters`."""
    orbax_patches.apply()
    saved, reason = tried(_saved_shapes, checkpoint)
    if reason is not None:
        raise UserError(_damaged(checkpoint, reason))
    remedy = "use that model's config, the switch_jax that wrote it, or another checkpoint"
    check_model(saved, shapes_of(abstract_parameters), f"the checkpoint {checkpoint}", remedy)


def _found(path: str | Path, step: int | None) -> Path:
    folder = local_path(path).absolute()
    if not folder.is_dir():
        raise UserError(f"there is no folder {path} to take parameters from")
    if step is None and (folder / _ARRAYS).is_dir():
        return folder
    steps = saved_steps(folder)
    if not steps:
        raise UserError(
            f"{path} has no checkpoint: give the MODEL_DIR of a run that has saved one, or "
            "MODEL_DIR/checkpoints/STEP"
        )
    if step is not None and step not in steps:
        there = ", ".join(map(str, steps))
        raise UserError(f"{path} has no checkpoint of step {step}: there are {there}")
    return folder / "checkpoints" / str(steps[-1] if step is None else step)


def _saved_shapes(checkpoint: Path) -> Shapes:
    read_descriptions(checkpoint)
    shapes = shapes_of(ocp.metadata(checkpoint, _ARRAYS).metadata["parameters"])
    if not shapes:
        raise ValueError("its description cannot be read")
    return shapes


def _value(checkpoint: Path) -> float | None:
    """What the best are chosen by; None where nothing was evaluated, or it cannot be read."""
    record, _ = tried(lambda: unpacked(ocp.metadata(checkpoint, _ARRAYS).custom_metadata))
    return record and record["value"]


def _read(checkpoint: Path, abstract_parameters: Any) -> Any:
    context = ocp.Context()
    context.pytree.loading.partial_load = True
    abstract = {"parameters": abstract_parameters}
    with context:
        return ocp.load(checkpoint, abstract, checkpointable_name=_ARRAYS)["parameters"]


def _damaged(checkpoint: Path, reason: str) -> str:
    return (
        f"the checkpoint {checkpoint} cannot be read ({reason}): it is damaged, or its run has "
        "removed it; nothing was changed there; choose another one, MODEL_DIR/checkpoints/STEP"
    )
