"""Saves and restores the training state with Orbax, in a folder that one job has locked."""

from switch_jax.checkpointing.checkpoints import Checkpoints, Restored
from switch_jax.checkpointing.lock import lock_run
from switch_jax.checkpointing.read_only import (
    best_step,
    chosen_step,
    find_checkpoint,
    load_parameters,
)
