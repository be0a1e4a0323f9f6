"""Saves and restores the training state with Orbax, in a folder that one job has locked.

checkpoints    saves and restores for the job   read_only      reads parameters for any job
preservation   which checkpoints stay           integrity      damage, arrays of another model
lock           one job for each run folder      streaming      parameters larger than memory
metadata       Orbax's metadata, and notes      orbax_patches  private names of Orbax
"""

from switch_jax.checkpointing.checkpoints import Checkpoints, Restored
from switch_jax.checkpointing.lock import lock_run
from switch_jax.checkpointing.read_only import (
    best_step,
    chosen_step,
    find_checkpoint,
    load_parameters,
)
