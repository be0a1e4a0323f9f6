"""How the parameters are updated."""

import dataclasses

from switch_jax.errors import check_choice
from switch_jax.fields import COUNT, FACTOR, check_fields

SCHEDULES = ("rsqrt", "constant")
TRAINED = ("all", "expert", "non_expert")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """T5's recipe: learning_rate / sqrt(max(step, warmup_steps)), or a constant to fine-tune with.

    Attributes:
      learning_rate: the base, relative to the RMS of each parameter. 1.0 in T5's pretraining: with
        10,000 warm-up steps the rate is 0.01 during them. 1e-3, constant, in its fine-tuning.
      warmup_steps: 'rsqrt': the rate is constant up to this step, and falls after it. 'constant':
        it rises linearly up to this step; 1 = the full rate from the first step on.
      lr_schedule: 'rsqrt' or 'constant'.
      trained_parameters: 'all'; 'expert', those with a logical axis 'expert', or 'non_expert', all
        others, the router too. Parameters that are not trained do not change by a bit, and have no
        optimiser state. Their gradients are still computed, since the bad-step guard judges the
        norm of all gradients.
      min_dim_size_to_factor: a matrix has a factored second moment if both its sides are at least
        this long.
    """

    learning_rate: float = 1.0
    warmup_steps: int = 10_000
    lr_schedule: str = "rsqrt"
    trained_parameters: str = "all"
    min_dim_size_to_factor: int = 128

    def __post_init__(self) -> None:
        """Raises FieldError on values that train nothing, and on unknown names."""
        check_fields(self, learning_rate=FACTOR, warmup_steps=COUNT, min_dim_size_to_factor=COUNT)
        check_choice("lr_schedule", self.lr_schedule, SCHEDULES)
        check_choice("trained_parameters", self.trained_parameters, TRAINED)
