"""Saves checkpoints of a run in the background, keeps some of them, restores onto any mesh."""

import contextlib
import re
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from switch_jax.checkpointing import orbax_patches
from switch_jax.checkpointing.integrity import (
    add_checksum,
    check_state,
    describe_damage,
    read_errors_explained,
    shapes_of,
    storage_errors_explained,
    try_to_read,
)
from switch_jax.checkpointing.metadata import (
    amend_notes,
    load_arrays,
    newest_notes,
    saved_metric,
    shapes_and_notes,
)
from switch_jax.checkpointing.preservation import Metric, NewestAndBest
from switch_jax.run_folder import RunFolder
from switch_jax.runtime.multihost import from_first, is_first, run_on_all, run_on_first
from switch_jax.storage import check_leases, explain_write_errors, list_names, move_folder
from switch_jax.utils.errors import UserError
from switch_jax.utils.terminal import say

State = TypeVar("State")


class Restored(NamedTuple):
    """A restored checkpoint: the step, the state on the mesh, and the notes given to `save`."""

    step: int
    state: Any
    notes: dict[str, Any]


class Checkpoints:
    """The checkpoints in a run's folder, MODEL_DIR/checkpoints/STEP; every process opens them."""

    @orbax_patches.without_logs()
    def __init__(
        self, folder: RunFolder, keep: int, keep_best: int = 0, keep_set_aside: int = 1
    ) -> None:
        """Opens the folder of checkpoints, and makes it if it is not there.

        The `keep` newest stay, and in addition the `keep_best` ones with the largest metrics. Those
        in `discarded` and in `damaged`, but for the newest `keep_set_aside` of each, are removed by
        a `save` before which there are `keep` checkpoints of the same step or later ones.
        """
        orbax_patches.apply()
        self._folder = folder
        self._policy = NewestAndBest(keep, keep_best)
        self._keep, self._keep_set_aside = keep, keep_set_aside
        self._discard_unreadable()
        _write_on_first(
            folder.checkpoints, lambda: folder.checkpoints.mkdir(parents=True, exist_ok=True)
        )
        for step in from_first(folder.checkpoint_steps):
            metric, damage = try_to_read(saved_metric, folder.checkpoint(step))
            if damage is None:  # else `restore` sets it aside
                self._policy.metrics[step] = metric
        with read_errors_explained(folder.checkpoints):
            self._checkpointer = ocp.training.Checkpointer(
                str(folder.checkpoints),
                save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
                preservation_policy=self._policy,
                cleanup_tmp_directories=True,
            )
        self._saving: Any = None  # Orbax's response of the save that is under way

    def steps(self) -> list[int]:
        """Lists the steps of the complete checkpoints, ascending."""
        return sorted(checkpoint.step for checkpoint in self._checkpointer.checkpoints)

    @orbax_patches.without_logs()
    def restore(self, abstract_state: State, last: int | None = None) -> Restored | None:
        """Reads the newest checkpoint, into the shapes, dtypes and shardings of `abstract_state`.

        Returns None if there is none. A checkpoint that cannot be read is named and moved to the
        folder `damaged`, and the one before it is read. Damaged notes from `amend` are named, and
        those of the checkpoint returned. Checkpoints after step `last` are moved to the folder
        `discarded`, but the oldest is read if all are later.

        Raises:
          UserError: the checkpoint is of another model (the first arrays that differ are named) or
            holds parameters alone, or all are damaged.
          TransientError: one cannot be read now, for another reason than damage; it stays.
        """
        self.wait()  # a save that is under way would look damaged
        damaged = self._folder.damaged
        if not self.steps() and list_names(damaged):
            self._raise_all_damaged()
        now = time.time_ns()
        if last is not None and self.steps():
            last = max(last, self.steps()[0])
            for step in [step for step in self.steps() if step > last]:
                self._discard(step, self._folder.discarded, now)
        for step in reversed(self.steps()):
            checkpoint = self._folder.checkpoint(step)
            found, damage = try_to_read(shapes_and_notes, checkpoint)
            if damage is None:
                shapes, notes = found
                check_state(self._folder, step, shapes, shapes_of(abstract_state))
                state, damage = try_to_read(load_arrays, checkpoint, abstract_state)
            if damage is None:
                notes = newest_notes(self._folder.metadata_override(step), step, notes)
                return Restored(step, state, notes)
            new_path = self._discard(step, damaged, now)
            if is_first():
                earlier = ", and the one before it is used" if self.steps() else ""
                _print_damaged(step, damage, new_path, earlier)
            if not self.steps():
                self._raise_all_damaged()
        return None

    def save(
        self, step: int, state: Any, notes: dict[str, Any], metric: float | None, of: Any = None
    ) -> None:
        """Copies the state off the devices and writes it in the background, with JSON `notes`.

        The best are chosen by `metric`, larger is better; with None it cannot be among them. `of`
        says what was measured, see `preservation.comparable`. Raises UserError if this or the save
        before it failed, on this process or another.
        """
        self.wait()
        amended = self._folder.metadata_override(step)

        def make_room() -> None:
            check_leases()
            amended.unlink(missing_ok=True)
            # One that was set aside goes only once the run has `keep` checkpoints of its step or
            # later.
            steps = self.steps()
            replaced = steps[-self._keep] if len(steps) >= self._keep else -1
            for folder in (self._folder.discarded, self._folder.damaged):
                _remove_older(folder, self._keep_set_aside, replaced)

        _write_on_first(amended, make_room)
        self._policy.metrics[step] = Metric(metric, of)
        record = add_checksum({"notes": notes, "value": metric, "value_of": of})

        def start() -> None:
            self._saving = self._checkpointer.save_async(
                step, state, custom_metadata=record, force=True
            )

        self._write_on_all(start)

    def amend(self, step: int, notes: dict[str, Any]) -> None:
        """Replaces the notes of the checkpoint of a step, if there is one; see `amend_notes`."""
        file = self._folder.metadata_override(step)
        if step in self.steps():
            _write_on_first(file, lambda: amend_notes(file, notes))

    def check(self) -> None:
        """Raises UserError if a save of a single process has failed by now; never waits."""
        if self._saving is not None and jax.process_count() == 1:
            with self._errors_explained(), contextlib.suppress(TimeoutError):
                self._saving.result(timeout=0)

    def wait(self) -> None:
        """Waits until everything is written; raises UserError if it could not be."""
        self._write_on_all(self._finish_saving)

    def close(self) -> None:
        """Does what `wait` does, on this process alone, and closes Orbax's checkpointer."""
        with self._errors_explained():
            try:
                self._finish_saving()
            finally:
                self._checkpointer.close()

    def _finish_saving(self) -> None:
        """Waits for the save under way, and for what Orbax removes after it."""
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.result()  # ends its thread and closes its event loop, which nothing else does
        self._checkpointer.wait()

    def _write_on_all(self, write: Callable[[], Any]) -> None:
        """Runs a function that writes; raises UserError on every process if it fails on any."""

        def attempt() -> None:
            with self._errors_explained():
                write()

        run_on_all(attempt)

    def _errors_explained(self) -> contextlib.AbstractContextManager[None]:
        return storage_errors_explained(
            f"checkpoints cannot be written to {self._folder.checkpoints}",
            "; what was saved before is still there",
        )

    def _discard_unreadable(self) -> None:
        """Moves checkpoints for which Orbax would refuse the whole folder to `damaged`."""

        def move() -> None:
            now = time.time_ns()
            for step in self._folder.checkpoint_steps():
                path = self._folder.checkpoint(step)
                try:
                    orbax_patches.check_metadata(path)
                except Exception as error:  # the file may hold anything
                    damage = describe_damage(error)
                    _print_damaged(step, damage, _set_aside(path, self._folder.damaged, now))

        _write_on_first(self._folder.checkpoints, move)

    def _discard(self, step: int, folder: epath.Path, now: int) -> epath.Path:
        """Moves a checkpoint to `discarded` or `damaged`; the first process returns where it is."""
        checkpoint = self._folder.checkpoint(step)
        self.wait()  # for all processes
        new_path = _write_on_first(folder, lambda: _set_aside(checkpoint, folder, now))
        self._policy.metrics.pop(step, None)
        with read_errors_explained(self._folder.checkpoints):
            self._checkpointer.reload()
        return new_path

    def _raise_all_damaged(self) -> None:
        raise UserError(
            f"no checkpoint is left in {self._folder.checkpoints}: all were damaged, and are in "
            f"{self._folder.damaged}; start again in another MODEL_DIR"
        )


def _set_aside(checkpoint: epath.Path, folder: epath.Path, now: int) -> epath.Path:
    """Moves a checkpoint to FOLDER/STEP_NOW, and returns that; raises OSError if it cannot."""
    new_path = folder / f"{checkpoint.name}_{now}"
    folder.mkdir(exist_ok=True)
    move_folder(checkpoint, new_path)
    return new_path


def _remove_older(folder: epath.Path, keep: int, last: int) -> None:
    """Removes the checkpoints up to step `last` except the newest `keep`, and nothing else."""
    ours = [name for name in list_names(folder) if re.fullmatch("[0-9]+_[0-9]+", name)]
    ours.sort(key=lambda name: [*map(int, reversed(name.split("_")))], reverse=True)
    for name in ours[keep:]:
        if int(name.split("_")[0]) <= last:
            with contextlib.suppress(OSError):  # the next save tries again
                (folder / name).rmtree()


def _write_on_first(path: epath.Path, write: Callable[[], Any]) -> Any:
    """Lets one process change the storage; raises UserError on every process if it cannot."""

    def attempt() -> Any:
        with explain_write_errors(path):
            return write()

    return run_on_first(attempt)


def _print_damaged(step: int, damage: str, path: epath.Path, consequence: str = "") -> None:
    moved = f"it was moved to {path}{consequence}"
    say(f"the checkpoint of step {step} is damaged ({damage}): {moved}", sys.stdout)
