"""What a start would say and do, without it."""

from switch_jax.config import Config
from switch_jax.run_folder import RunFolder
from switch_jax.storage import list_names
from switch_jax.trainer.start.announcement import announcement, beginning, nothing_to_do
from switch_jax.trainer.start.prepare import prepare
from switch_jax.trainer.start.state_memory import describe_memory
from switch_jax.utils.errors import UserError


def dry_run(config: Config, change_task: bool = False) -> list[str]:
    """Checks a run as `train`, raises as `prepare`, and returns the lines that it begins with."""
    prepared = prepare(config, change_task)
    saved, folder = prepared.saved, RunFolder.at(config.run.model_dir)
    newer = [step for step in folder.checkpoint_steps() if saved is None or step > saved.step]
    if saved is None and (newer or list_names(folder.damaged)):
        raise UserError(f"all checkpoints of the run in {folder} are damaged: none can be read")
    lines = [*describe_memory(prepared), *announcement(config, prepared.mesh)]
    if saved is not None and newer:
        lines.append(
            f"warning: of step {', '.join(map(str, newer))} the checkpoint is damaged: what came "
            f"after step {saved.step} is computed again"
        )
    if saved is not None and saved.is_over(config):
        return [*lines, nothing_to_do(prepared, saved.step)]
    return [*lines, *beginning(prepared, saved)]
