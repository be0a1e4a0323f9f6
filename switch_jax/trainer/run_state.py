"""Where a run is: restored from its newest checkpoint, or as it begins."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax

from switch_jax.checkpointing import Checkpoints
from switch_jax.config import Config
from switch_jax.config.optimizer import OPTIMIZERS
from switch_jax.data.position import Position
from switch_jax.errors import UserError
from switch_jax.runtime.processes import gather
from switch_jax.train_step.bad_step_guard import Guard, init_guard
from switch_jax.train_step.state import TrainState
from switch_jax.trainer.evaluation import Best
from switch_jax.trainer.prepare import Prepared
from switch_jax.trainer.warm_start import initial_state


@dataclasses.dataclass
class RunState:
    """What a run continues from; a checkpoint holds all of it.

    Attributes:
      step: steps done.
      state: parameters, optimiser and guard, on the devices.
      position: of the data, after the last step.
      best: the best evaluation so far.
    """

    step: int
    state: TrainState
    position: Position
    best: Best

    def is_over(self, config: Config) -> bool:
        """Whether no step is left to do."""
        return self.step >= config.run.train_steps or self.stops_early(config)

    def stops_early(self, config: Config) -> bool:
        """Whether EARLY_STOPPING_EVALS evaluations have passed without a better one."""
        patience = config.run.early_stopping_evals
        return patience is not None and self.best.since >= patience

    def notes(self) -> dict[str, Any]:
        """What a checkpoint holds beside the state. Every process has to call this."""
        positions = gather(self.position.as_json())  # each host knows its own streams
        return {"position": Position.from_json(positions).as_json(), "best": self.best.as_json()}


def restore(prepared: Prepared, checkpoints: Checkpoints, last: int | None = None) -> RunState:
    """The newest checkpoint, or the beginning of the run where there is none.

    Args:
      prepared: the run.
      checkpoints: of the run's folder.
      last: only checkpoints up to this step are looked at; None: all.

    Raises:
      UserError: the checkpoint cannot be read, or does not fit the config.
    """
    config = prepared.config
    restored = checkpoints.restore(
        prepared.state,
        last,
        {"guard": lambda: _fresh_guard(prepared)},
        lambda shapes, name: _check_optimizer(shapes, name, config.optimizer.optimizer),
    )
    if restored is None:
        state = initial_state(config, prepared.state, prepared.warm_start, prepared.teacher)
        return RunState(0, state, Position(0, {}), Best())
    position = Position.from_json([restored.notes["position"]])
    streams, wanted = len(position.streams), config.data.data_streams
    if streams != wanted:
        raise UserError(
            f"DATA_STREAMS is {wanted}, but the checkpoint of step {restored.step} was made with "
            f"{streams}: write --gin.DATA_STREAMS={streams}; it fixes the order of the data"
        )
    return RunState(restored.step, restored.state, position, Best(**restored.notes["best"]))


def _check_optimizer(shapes: Iterable[str], name: str, wanted: str) -> None:
    """Raises UserError where the checkpoint of these arrays was written with another optimiser."""
    saved = {path.split("/")[1] for path in shapes if path.startswith("optimizer/")}
    written = next((known for known in OPTIMIZERS if known in saved), "adafactor")
    if written != wanted:
        raise UserError(
            f"{name} was written with OPTIMIZER = {written!r}, and the config has {wanted!r}: "
            f"write --gin.OPTIMIZER={written} to go on with it, or start from its parameters with "
            "--gin.INITIAL_CHECKPOINT_PATH and another MODEL_DIR"
        )


def _fresh_guard(prepared: Prepared) -> Guard:
    """For a checkpoint whose guard has another form: another SPIKE_WINDOW, or an earlier version.

    An earlier version had `history`, the losses and norms themselves, in place of `recent`, and
    `skipped`. The run goes on without limits until the guard has seen enough steps.
    """
    shardings = jax.tree.map(lambda s: s.sharding, prepared.state.guard)
    return jax.jit(lambda: init_guard(prepared.config.guard), out_shardings=shardings)()
