"""How long a run is, where it writes, and how often it evaluates and saves."""

import dataclasses
from typing import Annotated

from switch_jax.utils.errors import FieldError, check_pattern
from switch_jax.utils.fields import (
    COUNT,
    Coefficient,
    Count,
    CountOrZero,
    OneOf,
    Range,
    Seed,
    With,
    check_fields,
    short_repr,
)

_EVALUATED = With("eval_period")
_FROM_CHECKPOINT = With("initial_checkpoint_path")


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """One training run.

    Attributes:
      model_dir: folder of the run: checkpoints, metrics, config.
      train_steps: optimiser steps in all, including those before a resume, but not those of
        `initial_checkpoint_path`.
      batch_size: B, rows (packed examples) of one optimiser step.
      num_microbatches: parts into which the batch is split; they are computed one after the other,
        which saves memory.
      initial_checkpoint_path: a run that has no checkpoint of its own starts from these parameters,
        as in fine-tuning. The path is the MODEL_DIR of another run (its newest checkpoint), one of
        its checkpoints, MODEL_DIR/checkpoints/STEP, the folder of a Hugging Face model, or a
        checkpoint of T5X. Steps, guard and data start at the beginning. None: from scratch.
      upcycle: start a model with experts from a dense one: every expert begins as a copy of the
        dense feed-forward layer in `initial_checkpoint_path`. 'copy': the router's gate makes the
        layer's output smaller at first; 'scaled_copy': the output is that of the dense model; see
        `trainer.start.upcycling`. None: the checkpoint is of the model itself.
      upcycle_noise: standard deviation of the noise added to each expert matrix, relative to the
        matrix's root mean square.
      restored_parameters: which parameters to take from `initial_checkpoint_path`, as in T5X's
        assignment maps: pairs of a regular expression, which has to match the whole name of a
        parameter of the new model, and the name in the checkpoint, where \\1 is the pattern's first
        group. The text of the pattern itself means the same name, and None that the parameter
        starts at random, as do those that match no pair. The first pair that matches counts. None:
        all are taken, and the models must be equal.
      keep_optimizer_state: also load the optimiser's state from `initial_checkpoint_path`, which
        must be a run of switch_jax. The count of updates is kept, so the schedule continues. False:
        the optimiser starts without a state.
      random_seed: seed of the first parameters, of dropout and of jitter.
      log_period: steps between records of training.
      eval_period: steps between evaluations; None: there are none, and the task needs no validation
        split.
      checkpoint_period: steps between checkpoints.
      eval_steps: at most this many batches of each validation set.
      infer_eval: evaluations also let the model generate text, and compute the metrics that the
        seqio tasks name; of at most `eval_steps * batch_size` examples.
      keep_checkpoints: how many of the newest checkpoints are kept.
      keep_best_checkpoints: how many of the best are kept too, of those that were evaluated.
      keep_set_aside_checkpoints: how many of the newest checkpoints are kept in each of the folders
        `discarded` (left behind by a rollback) and `damaged`; 0: none. Older ones go once the run
        has `keep_checkpoints` of the same step or later ones.
      best_metric: what the best checkpoint is chosen by: 'neg_log_perplexity' or 'accuracy' over
        all validation sets, or of one task of the mixture, as in 'my_task/accuracy'; with
        `infer_eval` also 'my_task/generated_NAME', NAME a metric of the task itself, and
        'generated_average', over the tasks of the mixture.
      early_stopping_evals: the run ends after this many evaluations without a better one; None: it
        does not stop early.
      profile_steps: first and last step of a profiler trace; None: no trace.
      watchdog_seconds: if a step takes longer, standard error gets the stacks of all threads.
      wandb_project: Weights & Biases project that also gets the metrics; None: no project.
    """

    model_dir: str
    train_steps: Count
    batch_size: Annotated[int, Range(1, 2**20)]
    num_microbatches: Annotated[int, Range(1, 2**20)] = 1
    initial_checkpoint_path: str | None = None
    upcycle: Annotated[str, OneOf("copy", "scaled_copy"), _FROM_CHECKPOINT] | None = None
    upcycle_noise: Annotated[Coefficient, With("upcycle")] = 0.0
    # Not with upcycling, which takes all of the checkpoint; nor with the optimiser's state, whose
    # count of updates is of all parameters, while those that are drawn had none.
    restored_parameters: (
        Annotated[
            tuple[tuple[str, str | None], ...],
            _FROM_CHECKPOINT,
            With("upcycle", (None,)),
            With("keep_optimizer_state", (False,)),
        ]
        | None
    ) = None
    keep_optimizer_state: Annotated[bool, _FROM_CHECKPOINT] = False
    random_seed: Seed = 0
    log_period: Count = 100
    eval_period: Count | None = 1000
    eval_steps: Count = 20
    infer_eval: Annotated[bool, _EVALUATED] = False
    checkpoint_period: Count = 1000
    keep_checkpoints: Count = 3
    keep_best_checkpoints: CountOrZero = 1
    keep_set_aside_checkpoints: CountOrZero = 1
    best_metric: Annotated[str, _EVALUATED] = "neg_log_perplexity"
    early_stopping_evals: Annotated[Count, _EVALUATED] | None = None
    profile_steps: tuple[int, int] | None = None
    watchdog_seconds: Annotated[float, Range(1, 365 * 24 * 3600)] = 1800.0
    wandb_project: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for pattern, saved in self.restored_parameters or ():
            check_pattern("restored_parameters", pattern, "" if saved in (None, pattern) else saved)
        pairs = self.restored_parameters
        if pairs is not None and all(saved is None for _, saved in pairs):
            raise FieldError("restored_parameters", f"= {short_repr(pairs)} takes nothing")
        first, last = self.profile_steps or (1, 1)
        if not 1 <= first <= last <= COUNT.most:
            raise FieldError(
                "profile_steps",
                f"= {self.profile_steps}: write the first and the last step to trace",
            )
