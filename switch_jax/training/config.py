"""How long a run is, and how often it looks up."""

import dataclasses

from switch_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
      model_dir: folder of the run: checkpoints, metrics, config.
      train_steps: optimiser steps in all, those before a resume included.
      batch_size: B, rows (packed examples) of one optimiser step.
      num_microbatches: parts that the batch is computed in, one after the other, to save memory.
      seed: of initialisation, dropout and jitter. The order of the data has its own.
      log_period, eval_period, checkpoint_period: steps between.
      eval_batches: most batches of each validation set.
      keep_checkpoints: how many of the newest stay.
    """

    model_dir: str
    train_steps: int
    batch_size: int
    num_microbatches: int = 1
    seed: int = 0
    log_period: int = 100
    eval_period: int = 1000
    eval_batches: int = 20
    checkpoint_period: int = 1000
    keep_checkpoints: int = 3

    def __post_init__(self) -> None:
        """Raises UserError on numbers below 1."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("model_dir", "seed") and value < 1:
                raise UserError(f"{field.name} = {value}: it must be at least 1")
