"""Saving and restoring the training state with Orbax."""

from switch_jax.checkpointing.checkpoints import Checkpoints

__all__ = ["Checkpoints"]
