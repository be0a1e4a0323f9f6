"""The names of everything in a run's folder, MODEL_DIR."""

import dataclasses
import os
from collections.abc import Iterable

from etils import epath

from switch_jax.storage import explain_read_errors, list_complete, storage_path


class _Place:
    """A path in a folder, by its name there."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "MetricsFolder", owner: object) -> epath.Path:
        return folder.path / self._name


@dataclasses.dataclass(frozen=True)
class MetricsFolder:
    """A folder that a `MetricWriter` writes: a run's folder, or `eval` in it."""

    path: epath.Path

    metrics = _Place("metrics.jsonl")  # records as JSON lines
    tensorboard = _Place("tensorboard")  # TensorBoard's event files, and profiler traces
    wandb_run_id = _Place("wandb_run_id")  # the run's id at Weights & Biases, with WANDB_PROJECT

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", epath.Path(self.path))  # also of one of pathlib's

    def __str__(self) -> str:
        return str(self.path)


@dataclasses.dataclass(frozen=True)
class EvalFolder(MetricsFolder):
    """What `switch_jax eval` writes."""

    predictions = _Place("predictions")  # files of predictions

    def predictions_of(self, task: str, split: str, step: int) -> epath.Path:
        """Inputs, targets and predictions of a task's examples, as JSON lines."""
        return self.predictions / f"{task}-{split}-{step}.jsonl"


@dataclasses.dataclass(frozen=True)
class RunFolder(MetricsFolder):
    """A run's folder, MODEL_DIR. Nothing need be there."""

    # A folder for each complete checkpoint, and temporary ones of Orbax.
    checkpoints = _Place("checkpoints")
    # Checkpoints after the one that a run with bad steps went back to, as STEP_TIME.
    discarded = _Place("discarded")
    damaged = _Place("damaged")  # checkpoints that cannot be read, as STEP_TIME

    config = _Place("config.gin")  # the operative gin config
    config_json = _Place("config.json")  # the same as a dict, `Config.settings`
    vocabulary = _Place("spiece.model")  # of a model that `switch_jax convert` brought in
    description = _Place("run.json")  # facts about the run
    damaged_description = _Place("run.json.damaged")  # as a start found it
    status = _Place("status.json")  # the state of the newest start
    lock = _Place("lock")  # locked by the process that trains here

    @staticmethod
    def at(model_dir: str | os.PathLike[str]) -> "RunFolder":
        """The folder at a path or URL as a user writes it; UserError: there can be no such path."""
        return RunFolder(storage_path(model_dir, "MODEL_DIR"))

    @property
    def evaluation(self) -> EvalFolder:
        return EvalFolder(self.path / "eval")

    def checkpoint(self, step: int) -> epath.Path:
        return self.checkpoints / str(step)

    def checkpoint_steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending; UserError: the folder cannot be read."""
        with explain_read_errors(self.checkpoints):
            return checkpoint_steps(list_complete(self.checkpoints))

    def metadata_override(self, step: int) -> epath.Path:
        """Notes in place of those that were saved with a step's checkpoint."""
        return self.path / "amended" / f"{step}.json"

    def bad_batch(self, batch: int, process: int) -> epath.Path:
        """A process's rows of a skipped step's batch, for `numpy.load`; batches count from 1."""
        return self.path / "bad_batches" / f"batch_{batch}_process_{process}.npz"


def checkpoint_steps(names: Iterable[str]) -> list[int]:
    """The steps, ascending, among the names in a folder `checkpoints`; temporary ones have none."""
    return sorted(int(name) for name in names if name.isdecimal())
