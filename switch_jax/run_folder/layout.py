"""The names of everything in a run's folder, MODEL_DIR."""

import dataclasses
import os
import re
from collections.abc import Iterable
from fnmatch import fnmatch

from etils import epath

from switch_jax.storage import explain_read_errors, list_complete, list_names, storage_path


@dataclasses.dataclass(frozen=True)
class MetricsFolder:
    """A folder that a `MetricWriter` writes: a run's folder, or `eval` in it."""

    path: epath.Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", epath.Path(self.path))  # also of one of pathlib's

    def __str__(self) -> str:
        return str(self.path)

    @property
    def metrics(self) -> epath.Path:
        """Records as JSON lines."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> epath.Path:
        """TensorBoard's event files, and profiler traces."""
        return self.path / "tensorboard"

    @property
    def wandb_run_id(self) -> epath.Path:
        """The id of the run at Weights & Biases; there where WANDB_PROJECT was set."""
        return self.path / "wandb_run_id"


@dataclasses.dataclass(frozen=True)
class EvalFolder(MetricsFolder):
    """What `switch_jax eval` writes."""

    @property
    def predictions(self) -> epath.Path:
        """Files of predictions."""
        return self.path / "predictions"

    def predictions_of(self, task: str, split: str, step: int) -> epath.Path:
        """Inputs, targets and predictions of a task's examples, as JSON lines."""
        return self.predictions / f"{task}-{split}-{step}.jsonl"

    @property
    def expert_tokens(self) -> epath.Path:
        """Files of the tokens that each expert takes."""
        return self.path / "expert_tokens"

    def expert_tokens_of(self, task: str, split: str, step: int) -> epath.Path:
        """A record for each expert of each Switch layer, as JSON lines."""
        return self.expert_tokens / f"{task}-{split}-{step}.jsonl"

    def newest_expert_tokens(self) -> list[epath.Path]:
        """The file of the highest step of each task and split, in the order of their names.

        Raises:
          OSError: the folder cannot be listed.
        """
        newest: dict[str, tuple[int, epath.Path]] = {}
        for file in list_names(self.expert_tokens):
            name = re.fullmatch(r"(.+)-(\d{1,15})\.jsonl", file)
            if name and int(name[2]) >= newest.get(name[1], (0, self.path))[0]:
                newest[name[1]] = int(name[2]), self.expert_tokens / file
        return [path for _, (_, path) in sorted(newest.items())]


@dataclasses.dataclass(frozen=True)
class RunFolder(MetricsFolder):
    """A run's folder, MODEL_DIR. Nothing need be there."""

    @staticmethod
    def at(model_dir: str | os.PathLike[str]) -> "RunFolder":
        """The folder at a path or URL as a user writes it.

        Raises:
          UserError: there can be no such path.
        """
        return RunFolder(storage_path(model_dir, "MODEL_DIR"))

    # Checkpoints.

    @property
    def checkpoints(self) -> epath.Path:
        """A folder for each complete checkpoint, and temporary ones of Orbax."""
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> epath.Path:
        """The folder of a step's checkpoint."""
        return self.checkpoints / str(step)

    def checkpoint_steps(self) -> list[int]:
        """Steps of the complete checkpoints, ascending; empty where the folder is not there.

        Raises:
          UserError: the folder cannot be read.
        """
        with explain_read_errors(self.checkpoints):
            return checkpoint_steps(list_complete(self.checkpoints))

    @property
    def discarded(self) -> epath.Path:
        """Checkpoints after the one that a run with bad steps went back to, as STEP_TIME."""
        return self.path / "discarded"

    @property
    def damaged(self) -> epath.Path:
        """Checkpoints that cannot be read, as STEP_TIME."""
        return self.path / "damaged"

    def metadata_override(self, step: int) -> epath.Path:
        """Notes in place of those that were saved with a step's checkpoint."""
        return self.path / "amended" / f"{step}.json"

    # What the run is and how it is doing.

    @property
    def config(self) -> epath.Path:
        """The operative gin config."""
        return self.path / "config.gin"

    @property
    def vocabulary(self) -> epath.Path:
        """The SentencePiece model of a model that `switch_jax convert` brought in."""
        return self.path / "spiece.model"

    @property
    def description(self) -> epath.Path:
        """Facts about the run, as JSON."""
        return self.path / "run.json"

    @property
    def status(self) -> epath.Path:
        """The state of the newest start, as JSON."""
        return self.path / "status.json"

    @property
    def lock(self) -> epath.Path:
        """Locked by the process that trains here."""
        return self.path / "lock"

    @property
    def evaluation(self) -> EvalFolder:
        """What `switch_jax eval` writes."""
        return EvalFolder(self.path / "eval")

    # What to look at when something goes wrong.

    def bad_batch(self, batch: int, process: int) -> epath.Path:
        """The rows of a skipped step's batch that a process has, for `numpy.load`.

        Args:
          batch: number of the batch, from 1.
          process: index of the process.
        """
        return self.path / "bad_batches" / f"batch_{batch}_process_{process}.npz"

    def hanging_process(self, process: int) -> epath.Path:
        """Stacks of all threads of a process whose step took too long."""
        return self.path / f"hanging_process_{process}.txt"

    def hanging_processes(self) -> list[epath.Path]:
        """The files of that kind that are there."""
        names = list_names(self.path)
        return [self.path / name for name in names if fnmatch(name, "hanging_process_*.txt")]

    @property
    def logs(self) -> epath.Path:
        """What the processes printed that `switch_jax launch --on=local` started."""
        return self.path / "logs"


def checkpoint_steps(names: Iterable[str]) -> list[int]:
    """The steps, ascending, among the names in a folder `checkpoints`; temporary ones have none."""
    return sorted(int(name) for name in names if name.isdecimal())
