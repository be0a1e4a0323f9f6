"""How long a run is, and how often it looks up."""

import dataclasses

from switch_jax.errors import FieldError
from switch_jax.fields import COUNT, SEED, Range, check_fields


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
      model_dir: folder of the run: checkpoints, metrics, config.
      train_steps: optimiser steps in all, those before a resume included; not those that
        `initial_checkpoint` had done.
      batch_size: B, rows (packed examples) of one optimiser step.
      num_microbatches: parts that the batch is computed in, one after the other, to save memory.
      initial_checkpoint: whose parameters a run without a checkpoint of its own starts from, as in
        fine-tuning: the MODEL_DIR of another run (its newest checkpoint) or one of its checkpoints,
        MODEL_DIR/checkpoints/STEP. Steps, optimiser, guard and data begin anew. None: from scratch.
      seed: of initialisation, dropout and jitter. The order of the data has its own.
      log_period, eval_period, checkpoint_period: steps between.
      eval_batches: most batches of each validation set.
      keep_checkpoints: how many of the newest stay.
      keep_best: how many of the best stay besides, of those that an evaluation goes with.
      keep_set_aside: how many of the newest checkpoints stay in each of the folders `discarded`
        (those that a return to an earlier one has left) and `damaged`; 0: none.
      best_metric: what is best: 'neg_log_perplexity' or 'accuracy' over all validation sets, or of
        one task or component of the mixture, as in 'my_task/accuracy'.
      early_stopping_evals: the run ends after so many evaluations without a better one; None: no.
      profile_steps: first and last step of a profiler trace; None: none is planned.
      watchdog_seconds: a step that takes longer has the stacks of all threads written out.
      wandb_project: Weights & Biases project that gets the metrics too; None: none does.
    """

    model_dir: str
    train_steps: int
    batch_size: int
    num_microbatches: int = 1
    initial_checkpoint: str | None = None
    seed: int = 0
    log_period: int = 100
    eval_period: int = 1000
    eval_batches: int = 20
    checkpoint_period: int = 1000
    keep_checkpoints: int = 3
    keep_best: int = 1
    keep_set_aside: int = 1
    best_metric: str = "neg_log_perplexity"
    early_stopping_evals: int | None = None
    profile_steps: tuple[int, int] | None = None
    watchdog_seconds: float = 1800.0
    wandb_project: str | None = None

    def __post_init__(self) -> None:
        """Raises FieldError on values of another type, and on numbers that make no sense."""
        check_fields(
            self,
            train_steps=COUNT,
            batch_size=Range(1, 2**20),
            num_microbatches=Range(1, 2**20),
            seed=SEED,
            log_period=COUNT,
            eval_period=COUNT,
            eval_batches=COUNT,
            checkpoint_period=COUNT,
            keep_checkpoints=COUNT,
            keep_best=Range(0, 2**31 - 1),
            keep_set_aside=Range(0, 2**31 - 1),
            early_stopping_evals=COUNT,
            watchdog_seconds=Range(1, 365 * 24 * 3600),
        )
        first, last = self.profile_steps or (1, 1)
        if not 1 <= first <= last <= COUNT.most:
            raise FieldError(
                "profile_steps",
                f"= {self.profile_steps}: write the first and the last step to trace, as "
                "(100, 105)",
            )
