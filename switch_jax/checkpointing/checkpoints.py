"""Checkpoints of one run: asynchronous, the newest few kept, restored onto any mesh."""

import contextlib
import json
import math
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
from orbax.checkpoint import v1 as ocp

from switch_jax.checkpointing import orbax_patches
from switch_jax.checkpointing.description import (
    Shapes,
    check_model,
    damage,
    packed,
    path_name,
    read_descriptions,
    shapes_of,
    tried,
    unpacked,
)
from switch_jax.checkpointing.orbax_patches import first_cause, root
from switch_jax.errors import UserError, storage_error
from switch_jax.paths import write_whole, writing
from switch_jax.runtime.processes import is_first, run_on_all, run_on_first

State = TypeVar("State")

_REMEDY = (
    "use that model's config, its TRAINED_PARAMETERS, the switch_jax that wrote it, or another "
    "MODEL_DIR"
)


class Restored(NamedTuple):
    """`step`; `state` on the mesh; `notes`: what was passed to `save` with it."""

    step: int
    state: Any
    notes: dict[str, Any]


class Checkpoints:
    """The folder `checkpoints` of a run, with one folder a step in it; every process opens it."""

    @orbax_patches.without_logs()
    def __init__(
        self, model_dir: str | Path, keep: int, keep_best: int = 0, keep_set_aside: int = 1
    ) -> None:
        """Opens the folder, and makes it where it is not.

        Args:
          model_dir: the run's folder.
          keep: how many of the newest checkpoints stay.
          keep_best: how many of those with the largest values stay besides.
          keep_set_aside: how many of the newest stay in the folder `discarded`, and in `damaged`.
            Older ones are emptied at the next `save`; their names stay.
        """
        orbax_patches.apply()
        self._model_dir = Path(model_dir).absolute()
        self.directory = self._model_dir / "checkpoints"
        self._policy = _NewestAndBest(keep, keep_best)
        self._keep_set_aside = keep_set_aside
        self._set_aside_unreadable()
        with _explained(self.directory):
            self._checkpointer = ocp.training.Checkpointer(
                str(self.directory),
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=self._policy,
                cleanup_tmp_directories=True,
            )
        for step in self.steps():
            with contextlib.suppress(Exception):  # of a damaged one: `restore` sets it aside
                self._policy.values[step] = self._record(step)["value"]

    def steps(self) -> list[int]:
        """Of the complete checkpoints, ascending."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    @orbax_patches.without_logs()
    def restore(
        self,
        abstract_state: State,
        last: int | None = None,
        fresh: Mapping[str, Callable[[], Any]] | None = None,
    ) -> Restored | None:
        """Reads the newest checkpoint, into the shapes, dtypes and shardings of `abstract_state`.

        One that cannot be read is named, moved to the folder `damaged`, and the one before it read.
        Notes from `amend` that cannot be read are named, and those that were saved with the
        checkpoint returned.

        Args:
          abstract_state: nested `ShapeDtypeStruct`s.
          last: no checkpoint of a later step is read, but for the oldest where all are later; the
            others are moved to the folder `discarded`.
          fresh: for parts of the state, by name, a function that makes them. What the checkpoint
            does not have of such a part, or has in another shape, is taken from there.

        Returns:
          None where there is no checkpoint.

        Raises:
          UserError: the checkpoint is of another model; names the first arrays that differ. Or all
            are damaged.
          TransientError: the storage failed; no checkpoint is moved for that.
        """
        fresh = fresh or {}
        self.wait()  # a save that is under way would look damaged
        damaged = self._model_dir / "damaged"
        if not self.steps() and damaged.is_dir() and any(damaged.iterdir()):
            self._say_all_damaged()
        now = time.time_ns()
        if last is not None and self.steps():
            last = max(last, self.steps()[0])
            for step in [step for step in self.steps() if step > last]:
                self._move(step, "discarded", now)
        for step in reversed(self.steps()):
            description, reason = tried(self._description, step)
            if reason is None:
                shapes, notes = description
                name = f"the checkpoint of step {step} in {self.directory}"
                wanted = shapes_of(abstract_state)
                check_model(_without(fresh, shapes), _without(fresh, wanted), name, _REMEDY)
                lacking = {path for path in wanted if shapes.get(path) != wanted[path]}
                state, reason = tried(self._load, step, abstract_state, lacking)
            if reason is None:
                notes = self._newest_notes(step, notes)
                return Restored(step, _completed(state, lacking, fresh), notes)
            place = self._move(step, "damaged", now)
            if is_first():
                earlier = ", and the one before it is used" if self.steps() else ""
                _say_damaged(step, reason, place, earlier)
            if not self.steps():
                self._say_all_damaged()
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
        amended = self._amended(step)

        def make_room() -> None:
            amended.unlink(missing_ok=True)
            self._empty_older_set_aside()

        _on_first(amended, make_room)
        self._policy.values[step] = value
        record = packed({"notes": notes, "value": value})
        self._attempt(
            lambda: self._checkpointer.save_async(step, state, custom_metadata=record, force=True)
        )

    def amend(self, step: int, notes: dict[str, Any]) -> None:
        """Gives the checkpoint of a step other notes, if there is one; all or nothing is written.

        Raises:
          UserError: it could not be written.
        """
        path = self._amended(step)

        def write() -> None:
            path.parent.mkdir(exist_ok=True)
            write_whole(path, json.dumps(packed(notes)))

        if step in self.steps():
            _on_first(path, write)

    def wait(self) -> None:
        """Until everything is written.

        Raises:
          UserError: it could not be written.
        """
        self._attempt(self._checkpointer.wait)

    def close(self) -> None:
        """Waits until everything is written; raises UserError if it could not be."""
        with _explained(self.directory):
            self._checkpointer.close()

    def _attempt(self, write: Callable[[], Any]) -> None:
        """Raises UserError on every process where it fails on any."""

        def attempt() -> None:
            try:
                with _explained(self.directory):
                    write()
            except UserError:
                orbax_patches.end_waiting_threads()
                raise

        run_on_all(attempt)

    def _record(self, step: int) -> dict[str, Any]:
        """Notes and value that were saved with a step; ValueError if they are damaged."""
        return unpacked(self._checkpointer.metadata(step).custom_metadata)

    def _description(self, step: int) -> tuple[Shapes, dict[str, Any]]:
        """Shapes of a checkpoint's arrays, and its notes; an exception if they are damaged."""
        read_descriptions(self.directory / str(step))
        metadata = self._checkpointer.metadata(step)
        shapes = shapes_of(metadata.metadata)
        if not shapes:
            raise ValueError("its description cannot be read")
        return shapes, unpacked(metadata.custom_metadata)["notes"]

    def _newest_notes(self, step: int, saved: dict[str, Any]) -> dict[str, Any]:
        """What `amend` has given a checkpoint; else, or if that is damaged, what was saved."""

        def read() -> dict[str, Any] | None:
            path = self._amended(step)
            return unpacked(json.loads(path.read_text())) if path.exists() else None

        amended, reason = tried(read)
        if reason is not None and is_first():
            print(
                f"{self._amended(step)} is damaged ({reason}): the checkpoint of step {step} is "
                "used with its own notes, so data that a return to it had left out come again",
                flush=True,
            )
        return saved if amended is None or reason is not None else amended

    def _load(self, step: int, abstract_state: State, lacking: set[str]) -> State:
        """Reads the state, with None for what the checkpoint lacks."""
        if not lacking:
            return self._checkpointer.load(step, abstract_state)
        context = ocp.Context()
        context.pytree.loading.partial_load = True
        there = jax.tree_util.tree_map_with_path(
            lambda path, leaf: None if path_name(path) in lacking else leaf,
            abstract_state,
        )
        with context:
            return self._checkpointer.load(step, there)

    def _amended(self, step: int) -> Path:
        return self._model_dir / "amended" / f"{step}.json"

    def _set_aside_unreadable(self) -> None:
        """Moves checkpoints for which Orbax would refuse the whole folder to `damaged`."""

        def move() -> None:
            now = time.time_ns()
            for path in self.directory.glob("*"):
                if not path.name.isdecimal():  # Orbax clears its temporary folders itself
                    continue
                try:
                    orbax_patches.check_described(path)
                except Exception as error:  # whatever may come of a file with any content
                    reason = damage(error)
                    place = self._place(path.name, "damaged", now)
                    place.parent.mkdir(exist_ok=True)
                    path.rename(place)
                    _say_damaged(path.name, reason, place)

        _on_first(self.directory, move)

    def _say_all_damaged(self) -> None:
        raise UserError(
            f"no checkpoint is left in {self.directory}: all were damaged, and are in "
            f"{self._model_dir / 'damaged'}; start again in another MODEL_DIR"
        )

    def _place(self, step: int | str, folder: str, now: int) -> Path:
        return self._model_dir / folder / f"{step}_{now}"

    def _empty_older_set_aside(self) -> None:
        """Makes room; `damaged` keeps the names, by which a later start knows what became of all.

        Only once there is something to save: where all checkpoints seem to be damaged, all stay.
        """
        for folder in ("discarded", "damaged"):
            there = (self._model_dir / folder).glob("*")
            paths = sorted(filter(_is_set_aside, there), key=_when_set_aside)
            for path in paths[: max(0, len(paths) - self._keep_set_aside)]:
                with contextlib.suppress(OSError):  # it is there at the next save too
                    shutil.rmtree(path)
                    path.mkdir()

    def _move(self, step: int, folder: str, now: int) -> Path:
        """Out of the way, to MODEL_DIR/folder/step_time."""
        place = self._place(step, folder, now)
        path = self.directory / str(step)
        self.wait()  # of all processes

        def move() -> None:
            place.parent.mkdir(exist_ok=True)
            path.rename(place)

        _on_first(place, move)
        self._policy.values.pop(step, None)
        self._checkpointer.reload()
        return place


def _is_set_aside(path: Path) -> bool:
    """Whether `Checkpoints` has named it: by step and time. Others may put folders there too."""
    return re.fullmatch("[0-9]+_[0-9]+", path.name) is not None


def _when_set_aside(path: Path) -> tuple[int, int]:
    """Time and step, of a path that `Checkpoints` has named."""
    step, time = map(int, path.name.split("_"))
    return time, step


class _NewestAndBest:
    """Orbax's question which checkpoints to keep, answered."""

    def __init__(self, keep: int, keep_best: int) -> None:
        self._keep, self._keep_best = keep, keep_best
        self.values: dict[int, float | None] = {}

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = sorted(checkpoint.step for checkpoint in checkpoints)
        values = {step: self.values.get(step) for step in steps}
        known = {step: v for step, v in values.items() if v is not None and not math.isnan(v)}
        best = sorted(known, key=known.__getitem__)[-self._keep_best :]
        kept = {*steps[-self._keep :], *(best if self._keep_best else [])}
        return [checkpoint.step in kept for checkpoint in checkpoints]


def _without(parts: Mapping[str, Any], shapes: Shapes) -> Shapes:
    """Shapes of what does not belong to these parts of the state."""
    return {path: shape for path, shape in shapes.items() if path.split("/")[0] not in parts}


def _completed(state: State, lacking: set[str], fresh: Mapping[str, Callable[[], Any]]) -> State:
    """With what the checkpoint lacks, from `fresh`."""
    if not lacking:
        return state
    made = {name: make() for name, make in fresh.items()}
    leaves = {path_name(path): x for path, x in jax.tree_util.tree_flatten_with_path(made)[0]}
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: leaves[path_name(path)] if path_name(path) in lacking else leaf,
        state,
        is_leaf=lambda x: x is None,
    )


@contextlib.contextmanager
def _explained(directory: Path) -> Iterator[None]:
    """What goes wrong in writing becomes one line."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise storage_error(
            f"checkpoints cannot be written to {directory}: {first_cause(error)}; what was saved "
            "before is still there",
            root(error),
        ) from error


def _on_first(path: Path, write: Callable[[], Any]) -> None:
    """Has one process change the disk; raises UserError on every process if it cannot."""

    def attempt() -> None:
        with writing(path):
            write()

    run_on_first(attempt)


def _say_damaged(step: int | str, reason: str, place: Path, consequence: str = "") -> None:
    print(
        f"the checkpoint of step {step} is damaged ({reason}): it was moved to {place}"
        f"{consequence}",
        flush=True,
    )
