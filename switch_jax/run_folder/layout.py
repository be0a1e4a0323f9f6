"""The names of everything in a run's folder, MODEL_DIR."""

import dataclasses
import os
from collections.abc import Iterable

from etils import epath

from switch_jax.storage import explain_state_errors, list_complete, storage_path


class _Path:
    """An attribute that is the path of this name in a folder."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, folder: "MetricsFolder", owner: object) -> epath.Path:
        return folder.path / self._name


@dataclasses.dataclass(frozen=True)
class MetricsFolder:
    """A folder that a `MetricWriter` writes to: a run's folder, or `eval` in it."""

    path: epath.Path

    metrics = _Path("metrics.jsonl")  # records as JSON lines
    tensorboard = _Path("tensorboard")  # TensorBoard's event files, and profiler traces
    wandb_run_id = _Path("wandb_run_id")  # the run's id at Weights & Biases, with WANDB_PROJECT

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", epath.Path(self.path))  # also of one of pathlib's

    def __str__(self) -> str:
        return str(self.path)


@dataclasses.dataclass(frozen=True)
class EvalFolder(MetricsFolder):
    """The folder that `switch_jax eval` writes to."""

    predictions = _Path("predictions")  # files of predictions

    def predictions_of(self, task: str, split: str, step: int) -> epath.Path:
        """Returns the file of inputs, targets and predictions of a task, as JSON lines."""
        return self.predictions / f"{task}-{split}-{step}.jsonl"


@dataclasses.dataclass(frozen=True)
class RunFolder(MetricsFolder):
    """A run's folder, MODEL_DIR, which need not be there yet."""

    # A folder for each complete checkpoint, and temporary ones of Orbax.
    checkpoints = _Path("checkpoints")
    # Checkpoints after the one that a run with bad steps went back to, as STEP_TIME.
    discarded = _Path("discarded")
    damaged = _Path("damaged")  # checkpoints that cannot be read, as STEP_TIME

    config = _Path("config.gin")  # the operative gin config
    config_json = _Path("config.json")  # the same as a dict, `Config.settings`
    vocabulary = _Path("spiece.model")  # of a model that `switch_jax convert` brought in
    description = _Path("run.json")  # facts about the run
    damaged_description = _Path("run.json.damaged")  # as a start found it
    status = _Path("status.json")  # the state of the newest start
    starts = _Path("starts.json")  # how often a JobSet started since the newest checkpoint
    lock = _Path("lock")  # locked by the process that trains here

    @staticmethod
    def at(model_dir: str | os.PathLike[str]) -> "RunFolder":
        """Makes it from a path or URL as a user writes it; UserError for an impossible one."""
        return RunFolder(storage_path(model_dir, "MODEL_DIR"))

    @property
    def evaluation(self) -> EvalFolder:
        return EvalFolder(self.path / "eval")

    def checkpoint(self, step: int) -> epath.Path:
        return self.checkpoints / str(step)

    def checkpoint_steps(self) -> list[int]:
        """Lists the steps of the complete checkpoints, ascending; TransientError if that fails."""
        with explain_state_errors(self.checkpoints):
            return checkpoint_steps(list_complete(self.checkpoints))

    def metadata_override(self, step: int) -> epath.Path:
        """Returns the file of notes that replace those saved with a step's checkpoint."""
        return self.path / "amended" / f"{step}.json"

    def bad_batch(self, batch: int, process: int) -> epath.Path:
        """Returns the file of a process's rows of a skipped batch; batches count from 1."""
        return self.path / "bad_batches" / f"batch_{batch}_process_{process}.npz"


def checkpoint_steps(names: Iterable[str]) -> list[int]:
    """Returns the steps, ascending, among the names in `checkpoints`, but no temporary ones."""
    return sorted(int(name) for name in names if name.isdecimal())
