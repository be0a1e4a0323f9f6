"""Checkpoints of one run: asynchronous, the newest few kept, restored onto any mesh."""

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
from orbax.checkpoint import v1 as ocp
from orbax.checkpoint._src.serialization import tensorstore_utils

from switch_jax.errors import UserError
from switch_jax.partitioning.hosts import all_agree, barrier, gather, is_first

State = TypeVar("State")


class Restored(NamedTuple):
    """`step`; `state` on the mesh; `notes`: what was passed to `save` with it."""

    step: int
    state: Any
    notes: dict[str, Any]


class Checkpoints:
    """The folder `checkpoints` of a run, with one folder a step in it; every process opens it."""

    def __init__(self, model_dir: str | Path, keep: int, keep_best: int = 0) -> None:
        """Opens the folder, and makes it where it is not.

        Args:
          model_dir: the run's folder.
          keep: how many of the newest checkpoints stay.
          keep_best: how many of those with the largest values stay besides.
        """
        _add_checksums()
        self._model_dir = Path(model_dir).absolute()
        self.directory = self._model_dir / "checkpoints"
        self._policy = _NewestAndBest(keep, keep_best)
        with _explained(self.directory):
            self._checkpointer = ocp.training.Checkpointer(
                str(self.directory),
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=self._policy,
                cleanup_tmp_directories=True,
            )
        for step in self.steps():
            with contextlib.suppress(Exception):  # of a damaged one: `restore` sets it aside
                value = self._checkpointer.metadata(step).custom_metadata["value"]
                self._policy.values[step] = value

    def steps(self) -> list[int]:
        """Of the complete checkpoints, ascending."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    def restore(self, abstract_state: State, last: int | None = None) -> Restored | None:
        """Reads the newest checkpoint, into the shapes, dtypes and shardings of `abstract_state`.

        One that cannot be read is named, moved to the folder `damaged`, and the one before it read.

        Args:
          abstract_state: nested `ShapeDtypeStruct`s.
          last: no checkpoint of a later step is read; they are moved to the folder `discarded`.

        Returns:
          None where there is no checkpoint.

        Raises:
          UserError: the checkpoint is of another model; names the first arrays that differ. Or all
            are damaged.
        """
        for step in reversed(self.steps()):
            if last is not None and step > last:
                self._move(step, "discarded")
                continue
            reason = self._damage(step)
            if reason is None:
                self._check_model(step, abstract_state)
                try:
                    state = self._checkpointer.load(step, abstract_state)
                except Exception as error:  # Orbax's own kinds of errors are many
                    reason = _first_cause(error)
            reasons = [r for r in gather(reason) if r is not None]
            if not reasons:
                notes = self._checkpointer.metadata(step).custom_metadata["notes"]
                if self._amended(step).exists():
                    notes = json.loads(self._amended(step).read_text())
                return Restored(step, state, notes)
            place = self._move(step, "damaged")
            if is_first():
                print(
                    f"the checkpoint of step {step} is damaged ({reasons[0]}): it was moved to "
                    f"{place}, and the one before it is used",
                    flush=True,
                )
            if not self.steps():
                raise UserError(
                    f"no checkpoint is left in {self.directory}: all were damaged, and are in "
                    f"{place.parent}; start again in another MODEL_DIR"
                )
        return None

    def save(self, step: int, state: Any, notes: dict[str, Any], value: float | None) -> None:
        """Copies the state off the devices and writes it in the background.

        Args:
          step: optimiser steps done.
          state: nested arrays.
          notes: whatever belongs to it, as JSON can say it.
          value: what the best are chosen by, larger is better; None: it cannot be among them.

        Raises:
          UserError: this or the save before it failed, on this process or another.
        """
        self.wait()
        if is_first():
            self._amended(step).unlink(missing_ok=True)
        if value is not None:
            self._policy.values[step] = value
        with _explained(self.directory):
            self._checkpointer.save_async(
                step, state, custom_metadata={"notes": notes, "value": value}, force=True
            )

    def amend(self, step: int, notes: dict[str, Any]) -> None:
        """Gives the checkpoint of a step other notes, if there is one; all or nothing is written.

        Raises:
          UserError: it could not be written.
        """
        failure = None
        if is_first() and step in self.steps():
            path = self._amended(step)
            unfinished = path.with_suffix(".unfinished")
            try:
                path.parent.mkdir(exist_ok=True)
                unfinished.write_text(json.dumps(notes))
                unfinished.replace(path)
            except OSError as error:
                failure = f"{path} cannot be written: {error.strerror}"
        all_agree(failure)

    def wait(self) -> None:
        """Until everything is written.

        Raises:
          UserError: it could not be written.
        """
        failure = None
        try:
            with _explained(self.directory):
                self._checkpointer.wait()
        except UserError as error:
            failure = str(error)
        all_agree(failure)

    def close(self) -> None:
        """Waits until everything is written."""
        with _explained(self.directory):
            self._checkpointer.close()

    def _amended(self, step: int) -> Path:
        return self._model_dir / "amended" / f"{step}.json"

    def _damage(self, step: int) -> str | None:
        """Why the checkpoint's own description cannot be read, on any process; None if it can."""
        try:
            metadata = self._checkpointer.metadata(step)
            complete = _shapes(metadata.metadata) and "notes" in (metadata.custom_metadata or {})
            reason = None if complete else "its description cannot be read"
        except Exception as error:
            reason = _first_cause(error)
        return next((r for r in gather(reason) if r is not None), None)

    def _check_model(self, step: int, abstract_state: Any) -> None:
        saved = _shapes(self._checkpointer.metadata(step).metadata)
        wanted = _shapes(abstract_state)
        differing = sorted(k for k in saved.keys() | wanted.keys() if saved.get(k) != wanted.get(k))
        if differing:
            examples = "; ".join(
                f"{name}: {saved.get(name, 'absent')} in the checkpoint, "
                f"{wanted.get(name, 'absent')} in the config"
                for name in differing[:3]
            )
            raise UserError(
                f"the checkpoint of step {step} in {self.directory} is of another model: "
                f"{len(differing)} of {len(wanted)} arrays differ ({examples}); use that model's "
                "config, the switch_jax that wrote it, or another MODEL_DIR"
            )

    def _move(self, step: int, folder: str) -> Path:
        """Out of the way, to MODEL_DIR/folder/step_time."""
        place = self._model_dir / folder / f"{step}_{time.time_ns()}"
        self.wait()
        barrier("move_checkpoint")
        failure = None
        if is_first():
            try:
                place.parent.mkdir(exist_ok=True)
                (self.directory / str(step)).rename(place)
            except OSError as error:
                failure = f"{self.directory / str(step)} cannot be moved: {error.strerror}"
        all_agree(failure)
        self._policy.values.pop(step, None)
        self._checkpointer.reload()
        return place


class _NewestAndBest:
    """Orbax's question which checkpoints to keep, answered."""

    def __init__(self, keep: int, keep_best: int) -> None:
        self._keep, self._keep_best = keep, keep_best
        self.values: dict[int, float] = {}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        known = [step for step in steps if step in self.values]
        best = sorted(known, key=self.values.__getitem__)[-self._keep_best :]
        kept = {*steps[-self._keep :], *(best if self._keep_best else [])}
        return [checkpoint.step in kept for checkpoint in checkpoints]


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """What goes wrong in writing becomes one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(
            f"checkpoints cannot be written to {directory}: {_first_cause(error)}; what was saved "
            "before is still there"
        ) from error


def _first_cause(error: BaseException) -> str:
    """What began a chain of exceptions, in one line."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    """Shapes by slash-separated path, of arrays or of what Orbax says of them."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def _add_checksums() -> None:
    """Has Orbax write a checksum with every piece of an array.

    By default a flipped bit in the file comes back as another number, and nobody is told. There is
    no public option; any Orbax reads such files, since they name their codecs.
    """
    build = tensorstore_utils._build_zarr3_metadata
    if getattr(build, "with_checksums", False):
        return

    def with_checksums(*args: Any, **kwargs: Any) -> dict[str, Any]:
        metadata = build(*args, **kwargs)
        metadata["codecs"][0]["configuration"]["codecs"].append({"name": "crc32c"})
        return metadata

    with_checksums.with_checksums = True  # type: ignore[attr-defined]
    tensorstore_utils._build_zarr3_metadata = with_checksums
