"""What a start would say and do, without it."""

from switch_jax.config import Config
from switch_jax.run_folder import RunFolder
from switch_jax.trainer.announcement import announcement, beginning, changes_to_run, nothing_to_do
from switch_jax.trainer.prepare import prepare
from switch_jax.trainer.resume import check_not_all_damaged
from switch_jax.trainer.state_memory import describe_memory


def dry_run(config: Config, config_text: str, change_task: bool = False) -> list[str]:
    """Checks a run as `train` does, and returns the lines that it would begin with.

    Args:
      config: the run.
      config_text: the config as gin text, which is compared with that of a run in MODEL_DIR.
      change_task: whether it may have another MIXTURE_OR_TASK_NAME, or other data files, than that
        run.

    Raises:
      UserError: something does not fit; see `prepare`. Or no checkpoint of the run can be read.
    """
    prepared = prepare(config, config_text, change_task)
    if prepared.saved is None:
        check_not_all_damaged(config)
    lines = [*describe_memory(prepared), *announcement(config, prepared.mesh)]
    saved, changes = prepared.saved, changes_to_run(config, config_text)
    if saved is not None:
        lines += _newer_that_are_damaged(config, saved.step)
    if saved is not None and saved.is_over(config):
        return [*lines, nothing_to_do(config, saved.step, changes)]
    return [*lines, *beginning(prepared, saved, changes)]


def _newer_that_are_damaged(config: Config, step: int) -> list[str]:
    """A warning of checkpoints newer than `step`, the newest that can be read; empty: none."""
    folder = RunFolder.at(config.run.model_dir)
    newer = [str(other) for other in folder.checkpoint_steps() if other > step]
    if not newer:
        return []
    return [
        f"warning: of step {', '.join(newer)} the checkpoint is damaged: `train` moves it to "
        f"{folder.damaged}, and computes what came after step {step} again"
    ]
