"""What a start would say and do, without it."""

from switch_jax.config import Config
from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder
from switch_jax.storage import list_names
from switch_jax.trainer.announcement import announcement, beginning, nothing_to_do
from switch_jax.trainer.prepare import prepare
from switch_jax.trainer.resume import ResumePoint
from switch_jax.trainer.state_memory import describe_memory


def dry_run(config: Config, change_task: bool = False) -> list[str]:
    """Checks a run as `train` does, and returns the lines that it would begin with.

    Args:
      config: the run.
      change_task: whether it may have another MIXTURE_OR_TASK_NAME, or other data files, than the
        run in MODEL_DIR.

    Raises:
      UserError: something does not fit; see `prepare`. Or no checkpoint of the run can be read.
    """
    prepared = prepare(config, change_task)
    lines = [*describe_memory(prepared), *announcement(config, prepared.mesh)]
    saved = prepared.saved
    lines += _damaged(config, saved)
    if saved is not None and saved.is_over(config):
        return [*lines, nothing_to_do(prepared, saved.step)]
    return [*lines, *beginning(prepared, saved)]


def _damaged(config: Config, saved: ResumePoint | None) -> list[str]:
    """A warning of checkpoints newer than the one that the run goes on from; empty: none.

    Raises:
      UserError: there are checkpoints, or were, and none can be read.
    """
    folder = RunFolder.at(config.run.model_dir)
    newer = [step for step in folder.checkpoint_steps() if saved is None or step > saved.step]
    if saved is None and not newer and list_names(folder.damaged):
        raise UserError(
            f"no checkpoint is left in {folder.checkpoints}: all were damaged, and are in "
            f"{folder.damaged}"
        )
    if not newer:
        return []
    damaged = f"of step {', '.join(map(str, newer))} the checkpoint is damaged"
    if saved is None:
        raise UserError(f"no checkpoint in {folder.checkpoints} can be read: {damaged}")
    return [f"warning: {damaged}: what came after step {saved.step} is computed again"]
