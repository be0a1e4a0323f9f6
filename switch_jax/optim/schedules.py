"""Learning-rate schedules."""

import jax.numpy as jnp
import optax

from switch_jax.config import OptimizerConfig


def learning_rate_schedule(config: OptimizerConfig) -> optax.Schedule:
    """The rate as a function of the updates done.

    'rsqrt': constant, then inverse square root of the step, as T5 pretrains: 1 / sqrt(max(step,
    1e4)). 'constant': as T5 and T5X fine-tune, 1e-3. The linear rise before it is ours: T5X
    continues with the optimiser state of pretraining, but a run from another run's checkpoint
    begins with a fresh state, whose second moments rest on a few batches during its first steps.
    """

    def rsqrt(count):
        step = jnp.maximum(jnp.asarray(count, jnp.float32), config.warmup_steps)
        return config.learning_rate / jnp.sqrt(step)

    def constant(count):
        risen = (jnp.asarray(count, jnp.float32) + 1) / config.warmup_steps
        return config.learning_rate * jnp.minimum(risen, 1.0)

    return {"rsqrt": rsqrt, "constant": constant}[config.lr_schedule]
