"""Saving and restoring the training state with Orbax, in a folder that one job holds."""

from switch_jax.checkpointing.checkpoints import Checkpoints, Restored
from switch_jax.checkpointing.lock import RunLock
from switch_jax.checkpointing.parameters import (
    best_step,
    commit_time,
    find_checkpoint,
    load_parameters,
    saved_steps,
)

__all__ = [
    "Checkpoints",
    "Restored",
    "RunLock",
    "best_step",
    "commit_time",
    "find_checkpoint",
    "load_parameters",
    "saved_steps",
]
