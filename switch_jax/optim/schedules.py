"""Learning-rate schedules."""

import jax.numpy as jnp
import optax

from switch_jax.config import Config


def learning_rate_schedule(config: Config) -> optax.Schedule:
    """The rate as a function of the updates done, which bad steps do not count among.

    'rsqrt': constant, then inverse square root of the step, as T5 pretrains: 1 / sqrt(max(step,
    1e4)). 'warmup_rsqrt': the same times a linear rise to it, as in T5X. 'constant': as T5 and T5X
    fine-tune, 1e-3. The linear rise before it is ours: the optimiser's state is fresh, where T5X's
    goes on, and rests on a few batches at first. 'cosine', 'linear' and 'wsd' (warm-up, stable,
    decay; Hu et al. 2024, arXiv 2404.06395) rise as 'constant' does. They reach their final rate
    after TRAIN_STEPS updates, so the last update still has a rate above it.
    """
    peak, warmup = config.optimizer.learning_rate, config.optimizer.warmup_steps

    def rsqrt(count):
        step = jnp.maximum(jnp.asarray(count, jnp.float32), warmup)
        return peak / jnp.sqrt(step)

    def risen(count):
        return jnp.minimum((jnp.asarray(count, jnp.float32) + 1) / warmup, 1.0)

    def warmup_rsqrt(count):
        return risen(count) * rsqrt(count)

    def constant(count):
        return peak * risen(count)

    name = config.optimizer.lr_schedule
    endless = {"rsqrt": rsqrt, "warmup_rsqrt": warmup_rsqrt, "constant": constant}
    if name in endless:
        return endless[name]
    steps, final = config.lr_decay_steps, config.optimizer.final_lr_fraction
    if name == "cosine":
        decay = optax.cosine_decay_schedule(peak, steps, final)
    else:
        decay = optax.linear_schedule(peak, peak * final, steps)
    return optax.join_schedules([constant, decay], [config.run.train_steps - steps])
