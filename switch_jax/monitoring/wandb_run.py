"""Starts Weights & Biases, which is optional: only this module imports it."""

import tempfile
import uuid
from typing import Any

from switch_jax.run_folder import MetricsFolder
from switch_jax.storage import in_bucket
from switch_jax.utils.errors import UserError


def import_wandb() -> Any:
    """Imports wandb; raises UserError if it is not installed."""
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise UserError(
            "WANDB_PROJECT is set but wandb is not installed: pip install -c requirements.txt "
            "wandb, in the checkout, or leave it at None"
        ) from error
    return wandb


def start_wandb(folder: MetricsFolder, project: str, config_text: str) -> Any:
    """Starts the W&B run of this folder: a new one, or that of an earlier start of the run.

    Log "step" among the values, not as the argument `step`: W&B drops values of a smaller step than
    the last, and a run that went back to a checkpoint logs such values. Raises UserError if wandb
    is not installed, or does not start.
    """
    wandb = import_wandb()
    id_file = folder.wandb_run_id
    if not id_file.exists():
        id_file.write_text(uuid.uuid4().hex)
    try:
        run = wandb.init(
            project=project,
            name=folder.path.name,
            id=id_file.read_text(),
            resume="allow",
            dir=tempfile.gettempdir() if in_bucket(folder.path) else str(folder.path),
            config={"gin": config_text},
        )
    except wandb.Error as error:
        raise UserError(
            f"Weights & Biases does not start: {error} With the environment variable "
            "WANDB_MODE=offline it keeps the numbers on this machine"
        ) from error
    run.define_metric("*", step_metric="step")
    return run
