"""Where a start resumes the run in MODEL_DIR, and whether the config fits that run.

A start looks here before it writes anything, so one that is refused leaves the run as it was.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from switch_jax.checkpointing.integrity import check_state, shapes_of
from switch_jax.checkpointing.read_only import newest_saved
from switch_jax.config import Config
from switch_jax.data.catalogue.checks import check_vocabularies_of_run
from switch_jax.data.reading.position import Position
from switch_jax.evaluation.best_evaluation import Best, measured
from switch_jax.run_folder import RunFolder
from switch_jax.runtime.multihost import run_on_all
from switch_jax.train_step.state import TrainState
from switch_jax.utils.differences import differences, listed
from switch_jax.utils.errors import UserError


class RunFiles(NamedTuple):
    """Digests of the data files of each task; without evaluation `validation` is None."""

    train: Mapping[str, str]
    validation: Mapping[str, str] | None


@dataclasses.dataclass
class ResumePoint:
    """What a checkpoint says of a run, beside its arrays, as a start goes on with it.

    `position` is that of the data after `step` steps, `best` the best evaluation so far, and `anew`
    lines on what the start begins anew.
    """

    step: int
    position: Position
    best: Best
    anew: Sequence[str]

    def is_over(self, config: Config) -> bool:
        """Whether no step is left to do."""
        return self.step >= config.run.train_steps or self.stops_early(config)

    def stops_early(self, config: Config) -> bool:
        """Whether EARLY_STOPPING_EVALS evaluations have passed without a better one."""
        patience = config.run.early_stopping_evals
        return patience is not None and self.best.since >= patience


def find_resume_point(
    config: Config,
    abstract: TrainState,
    files: RunFiles,
    before: Config | None,
    change_task: bool,
) -> ResumePoint | None:
    """The run in MODEL_DIR, if it has a checkpoint; nothing is written.

    `abstract` has the shapes of the start's state, and `before` is the run's config, None: it is
    not known. With `change_task` the start may have another MIXTURE_OR_TASK_NAME, or other files,
    than the run. Raises UserError where the checkpoint does not fit the config.
    """
    folder = run_on_all(lambda: RunFolder.at(config.run.model_dir))
    saved = newest_saved(folder)
    if saved is None:
        return None

    own = before or config
    was, now = own.optimizer.optimizer, config.optimizer.optimizer
    if was != now:
        raise UserError(
            f"OPTIMIZER {was!r} -> {now!r}: the run in {folder.path} goes on with the one that it "
            "began with; another run can start from its parameters"
        )
    other_model = differences(own.model.identity, config.model.identity)
    changes = config.changes_since(own)
    check_state(folder, saved.step, saved.shapes, shapes_of(abstract), other_model, changes)
    run_on_all(lambda: _check_same_vocabulary(folder, own, config))
    if not change_task:
        _check_same_task(before, config, files, saved.notes)
        if others := _changed_files(files, saved.notes):
            raise UserError(
                f"the checkpoint of step {saved.step} in {folder.checkpoints} was made with other "
                f"data files of {listed(others)}, by their names and sizes: bring them back, or "
                "to go on with these at the beginning of the next epoch add --change_task "
                "(change_task=True in Python)"
            )
    return resume_point(config, files, saved.step, saved.notes)


def resume_point(
    config: Config, files: RunFiles, step: int, notes: Mapping[str, Any]
) -> ResumePoint:
    """How a start goes on with a checkpoint; UserError where that had other streams of data."""
    position, best, anew = Position.from_json([notes["position"]]), Best(**notes["best"]), []
    streams, wanted = len(position.streams), config.data.data_streams
    if streams != wanted:
        raise UserError(
            f"DATA_STREAMS is {wanted}, but the checkpoint of step {step} was made with "
            f"{streams}: write --gin.DATA_STREAMS={streams}; it fixes the order of the data"
        )
    if changed := _changed_files(files, notes):
        position = position.at_next_epoch(changed)
        anew.append(
            f"the data files of {listed(changed)} have changed: each stream goes on with them "
            "at the beginning of its next epoch"
        )
    now = measured(config, files.validation)
    if changes := differences(best.of or {}, now) if now else []:
        if best.value is not None or best.since:
            anew.append(
                f"the best evaluation is sought anew ({listed(changes)}): evaluations and "
                "checkpoints from before are not compared with those to come; copy one that you "
                "want to keep"
            )
        best = Best(of=now)
    return ResumePoint(step, position, best, anew)


def _check_same_vocabulary(folder: RunFolder, before: Config, config: Config) -> None:
    """Compares vocabularies; where run.json does not tell that of the run, their names."""
    if check_vocabularies_of_run(folder.path, config.data):
        return
    trained, wanted = (each.data.vocabulary for each in (before, config))
    if trained != wanted:
        raise UserError(
            f"VOCABULARY {trained!r} -> {wanted!r}: the run in {folder.path} goes on with the one "
            "that it was trained with"
        )


def _check_same_task(
    before: Config | None, config: Config, files: RunFiles, notes: Mapping[str, Any]
) -> None:
    """Compares names; of a run whose config is not known those of the tasks in its checkpoint."""
    if before is not None:
        trained, wanted = (each.data.mixture_or_task_name for each in (before, config))
    else:
        trained, wanted = (", ".join(sorted(tasks)) for tasks in (notes["files"], files.train))
    if trained != wanted:
        raise UserError(
            f"the run in {config.run.model_dir} trains on {trained}, and this start on {wanted}: "
            "take another MODEL_DIR for a new run, or to go on with other data add --change_task "
            "(change_task=True in Python)"
        )


def _changed_files(files: RunFiles, notes: Mapping[str, Any]) -> list[str]:
    """The tasks whose files have changed since a checkpoint; of those that it has."""
    before = notes["files"]
    return [task for task, digest in files.train.items() if before.get(task, digest) != digest]
