"""How the parameters are updated."""

import dataclasses
from typing import Annotated

from switch_jax.config.schedules import ENDING, FALLING_AT_THE_END, SCHEDULES
from switch_jax.utils.errors import FieldError, check_pattern
from switch_jax.utils.fields import (
    FACTOR,
    Coefficient,
    Count,
    Factor,
    Inherited,
    OneOf,
    Range,
    Rate,
    With,
    check_fields,
)

OPTIMIZERS = ("adafactor", "adamw", "muon")
TRAINED = ("all", "expert", "non_expert")
_ADAM = With("optimizer", ("adamw", "muon"))


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser and its learning rate; the defaults are T5's recipe.

    Attributes:
      optimizer: 'adafactor', 'adamw' or 'muon' (orthogonalised momentum for matrices, AdamW for the
        rest). Each layer and each expert is updated as if it were alone.
      learning_rate: the highest rate; with 'rsqrt' and 'warmup_rsqrt' a base, see `lr_schedule`.
        'adafactor' multiplies it by the RMS of each parameter. T5 pretrains with 1.0 and 'rsqrt',
        which is a rate of 0.01 in the 10,000 steps of warm-up, and fine-tunes with 1e-3, constant.
      warmup_steps: 'rsqrt': the rate is constant up to this step, and falls after it. The others:
        it rises linearly up to this step; 1 = the full rate from the first step on.
      lr_schedule: 'rsqrt', learning_rate / sqrt(max(step, warmup_steps)); 'warmup_rsqrt', the same
        after a linear rise; 'constant'; 'cosine' and 'linear', which fall from the end of the
        warm-up to the end of the run; or 'wsd' (warm-up, stable, decay), which is constant and
        falls linearly over the last `decay_steps`.
      final_lr_fraction: 'cosine', 'linear' and 'wsd' end at this fraction of `learning_rate`.
      decay_steps: how many steps at the end of 'wsd' lower the rate; None: a tenth of the run.
      weight_decay: this times the rate times the parameter is subtracted too; matrices only, see
        `optim.optimizer`.
      adam_b1: decay of the running mean of gradients, in AdamW.
      adam_b2: decay of the running mean of squared gradients, in AdamW.
      gradient_clip_norm: gradients of a larger global norm are scaled down to it; None: never. The
        norm is of the trained parameters alone.
      trained_parameters: 'all'; 'expert', those with a logical axis 'expert'; 'non_expert', all
        others, the router too; or a regular expression, which the whole name of a parameter has to
        match, as 'decoder/.*'. Parameters that are not trained do not change by a bit, and have no
        optimiser state. Their gradients are still computed, since the bad-step guard judges the
        norm of all gradients.
      learning_rate_factors: pairs of a regular expression, which the whole name of a parameter has
        to match, and what its learning rate is multiplied by, as [('.*/router', 0.1)]. The first
        pair that matches counts; without one it is 1. None: no pairs. Weight decay is multiplied,
        too, since it is relative to the rate.
      router_bias_update_rate: with `ModelConfig.load_balance` = 'bias', how much a step raises the
        bias of an expert without tokens, and lowers that of one with twice the mean load; others in
        proportion. In standard deviations of a token's logits, so one rate suits any number of
        experts and any scale of a router. Neither learning rate nor weight decay nor clipping
        applies to biases.
      min_dim_size_to_factor: 'adafactor': a matrix has a factored second moment if both its sides
        are at least this long.
    """

    optimizer: Annotated[str, OneOf(*OPTIMIZERS)] = "adafactor"
    learning_rate: Factor = 1.0
    warmup_steps: Count = 10_000
    lr_schedule: Annotated[str, OneOf(*SCHEDULES)] = "rsqrt"
    final_lr_fraction: Annotated[float, Range(0, 1), With("lr_schedule", ENDING)] = 0.0
    decay_steps: Annotated[Count, With("lr_schedule", FALLING_AT_THE_END)] | None = None
    weight_decay: Annotated[Coefficient, _ADAM] = 0.0
    adam_b1: Annotated[Rate, _ADAM] = 0.9
    adam_b2: Annotated[Rate, _ADAM] = 0.999
    gradient_clip_norm: Factor | None = None
    trained_parameters: str = "all"
    learning_rate_factors: tuple[tuple[str, float], ...] | None = None
    router_bias_update_rate: Annotated[
        Coefficient, With("load_balance", ("bias",)), Inherited()
    ] = 0.03
    min_dim_size_to_factor: Annotated[Count, With("optimizer", ("adafactor",))] = 128

    def __post_init__(self) -> None:
        check_fields(self)
        check_pattern("trained_parameters", self.trained_parameters)
        for pattern, factor in self.learning_rate_factors or ():
            check_pattern("learning_rate_factors", pattern)
            if problem := FACTOR.problem(factor):
                raise FieldError(
                    "learning_rate_factors", f"has {factor!r} for {pattern!r}: {problem}"
                )
