"""The learning rate, and the optimiser with it."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import optax

from switch_jax.errors import UserError
from switch_jax.training.adafactor import adafactor


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """T5's recipe: learning_rate / sqrt(max(step, warmup_steps)).

    Attributes:
      learning_rate: the base, 1.0 in T5; with 10,000 warm-up steps the rate is 0.01 during them.
        Relative to the RMS of each parameter.
      warmup_steps: the rate is constant up to here and falls with the inverse square root after.
      min_dim_size_to_factor: a matrix has a factored second moment if both its sides are as long.
    """

    learning_rate: float = 1.0
    warmup_steps: int = 10_000
    min_dim_size_to_factor: int = 128

    def __post_init__(self) -> None:
        """Raises UserError on values that train nothing."""
        if self.learning_rate <= 0 or self.warmup_steps < 1:
            raise UserError(
                f"learning_rate = {self.learning_rate}, warmup_steps = {self.warmup_steps}: "
                "the first must be above 0, the second at least 1"
            )


def learning_rate_schedule(config: OptimizerConfig) -> optax.Schedule:
    """Constant, then inverse square root of the step, as T5 pretrains: 1 / sqrt(max(step, 1e4))."""

    def schedule(count):
        step = jnp.maximum(jnp.asarray(count, jnp.float32), config.warmup_steps)
        return config.learning_rate / jnp.sqrt(step)

    return schedule


def make_optimizer(config: OptimizerConfig, axes: Any) -> optax.GradientTransformationExtraArgs:
    """T5's Adafactor; `axes` are the parameters' logical axes."""
    return adafactor(
        learning_rate_schedule(config),
        axes,
        min_dim_size_to_factor=config.min_dim_size_to_factor,
    )
