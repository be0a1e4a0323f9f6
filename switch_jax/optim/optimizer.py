"""The learning rate, and the optimiser with it."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from switch_jax.errors import UserError, one_of
from switch_jax.fields import COUNT, FACTOR, check_fields
from switch_jax.optim.adafactor import adafactor

SCHEDULES = ("rsqrt", "constant")
TRAINED = ("all", "expert", "non_expert")


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """T5's recipe: learning_rate / sqrt(max(step, warmup_steps)), or a constant to fine-tune with.

    Attributes:
      learning_rate: the base, relative to the RMS of each parameter. 1.0 in T5's pretraining: with
        10,000 warm-up steps the rate is 0.01 during them. 1e-3, constant, in its fine-tuning.
      warmup_steps: 'rsqrt': the rate is constant up to here and falls after; 'constant': it rises
        linearly to here, 1 = at full height from the first step.
      schedule: 'rsqrt' or 'constant'.
      trained_parameters: 'all'; 'expert', those with a logical axis 'expert', or 'non_expert', all
        others, the router too. What is not trained keeps every bit, and has no optimiser state. Its
        gradients are computed even so: the guard judges the norm of all.
      min_dim_size_to_factor: a matrix has a factored second moment if both its sides are as long.
    """

    learning_rate: float = 1.0
    warmup_steps: int = 10_000
    schedule: str = "rsqrt"
    trained_parameters: str = "all"
    min_dim_size_to_factor: int = 128

    def __post_init__(self) -> None:
        """Raises FieldError on values that train nothing, and on unknown names."""
        check_fields(self, learning_rate=FACTOR, warmup_steps=COUNT, min_dim_size_to_factor=COUNT)
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("trained_parameters", self.trained_parameters, TRAINED)


def learning_rate_schedule(config: OptimizerConfig) -> optax.Schedule:
    """The rate as a function of the updates done.

    'rsqrt': constant, then inverse square root of the step, as T5 pretrains: 1 / sqrt(max(step,
    1e4)). 'constant': as T5 and T5X fine-tune, 1e-3. The linear rise before it is ours: T5X goes on
    with the optimiser's state of pretraining, a run from `initial_checkpoint` begins with a fresh
    one, whose second moments are those of a few batches during its first steps.
    """

    def rsqrt(count):
        step = jnp.maximum(jnp.asarray(count, jnp.float32), config.warmup_steps)
        return config.learning_rate / jnp.sqrt(step)

    def constant(count):
        risen = (jnp.asarray(count, jnp.float32) + 1) / config.warmup_steps
        return config.learning_rate * jnp.minimum(risen, 1.0)

    return {"rsqrt": rsqrt, "constant": constant}[config.schedule]


def make_optimizer(config: OptimizerConfig, axes: Any) -> optax.GradientTransformationExtraArgs:
    """T5's Adafactor; `axes` are the parameters' logical axes.

    Raises:
      UserError: the model has no parameter of those that are to be trained.
    """

    def is_trained(names: tuple[str, ...]) -> bool:
        wanted = config.trained_parameters
        return wanted == "all" or ("expert" in names) == (wanted == "expert")

    if not any(map(is_trained, jax.tree.leaves(axes, is_leaf=lambda x: type(x) is tuple))):
        raise UserError(
            f"trained_parameters = {config.trained_parameters!r}, but the model is dense: it has "
            "no experts; write 'all'"
        )
    return adafactor(
        learning_rate_schedule(config),
        axes,
        is_trained=is_trained,
        min_dim_size_to_factor=config.min_dim_size_to_factor,
    )
