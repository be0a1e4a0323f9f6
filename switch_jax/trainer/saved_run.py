"""The run that is in MODEL_DIR before a start: where it is, and whether the config fits it.

A start looks here before it writes anything, so one that is refused leaves the run as it was.
"""

import dataclasses
from collections.abc import Iterable

from switch_jax.checkpointing.integrity import Shapes, check_state, shapes_of
from switch_jax.checkpointing.read_only import newest_saved
from switch_jax.config import Config
from switch_jax.config.optimizer import OPTIMIZERS
from switch_jax.data.checks import check_vocabularies_of_run
from switch_jax.data.position import Position
from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder, read_config
from switch_jax.runtime.processes import run_on_all
from switch_jax.train_step.state import TrainState
from switch_jax.trainer.config_changes import check_same_shapes, check_same_task
from switch_jax.trainer.evaluation import Best

FRESH = "guard"  # the part of the state that a checkpoint may lack, or have in another form


@dataclasses.dataclass
class SavedRun:
    """What the newest checkpoint says of a run, beside its arrays.

    Attributes:
      step: steps done.
      position: of the data, after the last step.
      best: the best evaluation so far.
    """

    step: int
    position: Position
    best: Best

    def is_over(self, config: Config) -> bool:
        """Whether no step is left to do."""
        return self.step >= config.run.train_steps or self.stops_early(config)

    def stops_early(self, config: Config) -> bool:
        """Whether EARLY_STOPPING_EVALS evaluations have passed without a better one."""
        patience = config.run.early_stopping_evals
        return patience is not None and self.best.since >= patience


def find_saved_run(
    config: Config, abstract: TrainState, config_text: str, change_task: bool
) -> SavedRun | None:
    """The run in MODEL_DIR, if it has a checkpoint; nothing is written.

    Args:
      config: of the start.
      abstract: shapes of its state.
      config_text: its text, which is compared with the run's.
      change_task: whether it may have another MIXTURE_OR_TASK_NAME than the run.

    Raises:
      UserError: the checkpoint does not fit the config.
    """
    folder = run_on_all(lambda: RunFolder.local(config.run.model_dir))
    saved = newest_saved(folder)
    if saved is None:
        return None

    before = run_on_all(lambda: read_config(folder).value)

    def explain(shapes: Shapes, name: str) -> None:
        check_optimizer(shapes, name, config.optimizer.optimizer)
        check_same_shapes(before, config_text, name, folder)

    check_state(folder, saved.step, saved.shapes, shapes_of(abstract), [FRESH], explain)
    run_on_all(lambda: check_vocabularies_of_run(folder.path, config.data, own_config=None))
    if not change_task:
        check_same_task(before, config_text, config.run.model_dir)
    position = Position.from_json([saved.notes["position"]])
    check_streams_of_run(config, position, saved.step)
    return SavedRun(saved.step, position, Best(**saved.notes["best"]))


def check_not_all_damaged(config: Config) -> None:
    """Raises UserError where MODEL_DIR has checkpoints, and none that `find_saved_run` can read."""

    def check() -> None:
        folder = RunFolder.local(config.run.model_dir)
        steps, damaged = folder.checkpoint_steps(), folder.damaged
        if not steps and not (damaged.is_dir() and any(damaged.iterdir())):
            return
        found = f"those of step {', '.join(map(str, steps))} are damaged, and `train` moves them to"
        raise UserError(
            f"no checkpoint in {folder.checkpoints} can be read: "
            f"{found if steps else 'all were damaged, and are in'} {damaged}; start again in "
            "another MODEL_DIR"
        )

    run_on_all(check)


def check_streams_of_run(config: Config, position: Position, step: int) -> None:
    """Raises UserError where a checkpoint was made with another number of streams of data."""
    streams, wanted = len(position.streams), config.data.data_streams
    if streams != wanted:
        raise UserError(
            f"DATA_STREAMS is {wanted}, but the checkpoint of step {step} was made with "
            f"{streams}: write --gin.DATA_STREAMS={streams}; it fixes the order of the data"
        )


def check_optimizer(shapes: Iterable[str], name: str, wanted: str) -> None:
    """Raises UserError where the checkpoint of these arrays was written with another optimiser.

    Args:
      shapes: paths of the arrays.
      name: what messages call the checkpoint.
      wanted: OPTIMIZER.
    """
    saved = {path.split("/")[1] for path in shapes if path.startswith("optimizer/")}
    written = next((known for known in OPTIMIZERS if known in saved), "adafactor")
    if written != wanted:
        raise UserError(
            f"{name} was written with OPTIMIZER = {written!r}, and the config has {wanted!r}: "
            f"write --gin.OPTIMIZER={written} to go on with it, or start from its parameters with "
            "--gin.INITIAL_CHECKPOINT_PATH and another MODEL_DIR"
        )
