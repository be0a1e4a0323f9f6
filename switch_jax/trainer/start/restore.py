"""The state of a run: restored from its newest checkpoint, or as it begins."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from switch_jax.checkpointing import Checkpoints
from switch_jax.data.reading.position import Position
from switch_jax.evaluation.best_evaluation import Best, measured
from switch_jax.runtime.multihost import gather
from switch_jax.train_step.state import TrainState
from switch_jax.trainer.start.prepare import Prepared
from switch_jax.trainer.start.resume import ResumePoint, resume_point
from switch_jax.trainer.start.warm_start import initial_state


@dataclasses.dataclass
class RunState(ResumePoint):
    """What a run continues from; a checkpoint holds all of it.

    `files` are digests of each task's data files. While the loop has a step in flight, `state` is
    what comes out of that step, and all else is of the step before it.
    """

    files: Mapping[str, str]
    state: TrainState

    def notes(self) -> dict[str, Any]:
        """What a checkpoint holds beside the state. Every process has to call this."""
        positions = gather(self.position.as_json())  # each host knows its own streams
        return {
            "position": Position.from_json(positions).as_json(),
            "files": self.files,
            "best": self.best.as_json(),
        }


def restore(prepared: Prepared, checkpoints: Checkpoints, last: int | None = None) -> RunState:
    """The newest checkpoint (up to the step `last`), or the beginning of the run without one."""
    config, files = prepared.config, prepared.files
    restored = checkpoints.restore(prepared.state, last)
    if restored is None:
        state = initial_state(config, prepared.state, prepared.start)
        run = ResumePoint(0, Position(0, {}), Best(of=measured(config, files.validation)), [])
    else:
        state = restored.state
        run = resume_point(config, files, restored.step, restored.notes)
    return RunState(run.step, run.position, run.best, run.anew, files.train, state)
