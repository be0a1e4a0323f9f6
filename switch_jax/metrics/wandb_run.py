"""Weights & Biases: optional, and imported by nobody else."""

import uuid
from pathlib import Path
from typing import Any

from switch_jax.errors import UserError


def start_wandb(model_dir: Path, project: str, config_text: str) -> Any:
    """The W&B run of this folder: a new one, or the one that an earlier life had started.

    Log with the number "step" among the values, not with the argument `step`: W&B drops what comes
    with a smaller one than its last, as everything does that a run repeats from its checkpoint.

    Raises:
      UserError: wandb is not installed, or does not start.
    """
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise UserError(
            "WANDB_PROJECT is set but wandb is not installed: pip install 'switch_jax[wandb]'"
        ) from error
    id_file = model_dir / "wandb_run_id"
    if not id_file.exists():
        id_file.write_text(uuid.uuid4().hex)
    try:
        run = wandb.init(
            project=project,
            name=model_dir.name,
            id=id_file.read_text(),
            resume="allow",
            dir=str(model_dir),
            config={"gin": config_text},
        )
    except wandb.Error as error:
        raise UserError(
            f"Weights & Biases does not start: {error} With the environment variable "
            "WANDB_MODE=offline it keeps the numbers on this machine"
        ) from error
    run.define_metric("*", step_metric="step")
    return run
