"""What a start would say and do, without it."""

from switch_jax.config import Config
from switch_jax.run_folder import RunFolder, read_config
from switch_jax.runtime.processes import run_on_first
from switch_jax.trainer.announcement import announcement, beginning, config_changes, nothing_to_do
from switch_jax.trainer.prepare import prepare
from switch_jax.trainer.state_memory import describe_memory


def dry_run(config: Config, config_text: str) -> list[str]:
    """Checks a run as `train` does, and returns the lines that it would begin with.

    Args:
      config: the run.
      config_text: the config as gin text, which is compared with that of a run in MODEL_DIR.

    Raises:
      UserError: something does not fit; see `prepare`.
    """
    prepared = prepare(config)
    lines = [*describe_memory(prepared), *announcement(config, prepared.mesh)]
    saved, folder = prepared.saved, RunFolder.local(config.run.model_dir)
    found = run_on_first(lambda: config_changes(read_config(folder).value, config_text))
    changes = found or []
    if saved is not None and saved.is_over(config):
        return [*lines, nothing_to_do(config, saved.step, changes)]
    return [*lines, *beginning(prepared, saved, changes)]
