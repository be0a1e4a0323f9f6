"""Learning-rate schedules."""

from collections.abc import Callable

import jax.numpy as jnp
import optax

from switch_jax.config import Config


def learning_rate_schedule(config: Config) -> optax.Schedule:
    """The rate as a function of the updates done, which bad steps do not count among.

    'rsqrt': constant, then inverse square root of the step, as T5 pretrains: 1 / sqrt(max(step,
    1e4)). 'warmup_rsqrt': the same times a linear rise to it, as T5X's "constant * linear_warmup *
    rsqrt_decay". 'constant': as T5 and T5X fine-tune, 1e-3. The linear rise before it is ours: a
    run from another run's checkpoint begins with a fresh optimiser state, where T5X's goes on, and
    its second moments rest on a few batches at first.
    'cosine', 'linear' and 'wsd' (warm-up, stable, decay; Hu et al. 2024, arXiv 2404.06395) rise as
    'constant' does. They reach their final rate after TRAIN_STEPS updates, so the last update still
    has a rate above it.
    """
    return FORMULAS[config.optimizer.lr_schedule](config)


def _rsqrt(config: Config) -> optax.Schedule:
    peak, warmup = config.optimizer.learning_rate, config.optimizer.warmup_steps
    return lambda count: peak / jnp.sqrt(jnp.maximum(jnp.asarray(count, jnp.float32), warmup))


def _rise(config: Config) -> optax.Schedule:
    """From 1 / WARMUP_STEPS to 1."""
    warmup = config.optimizer.warmup_steps
    return lambda count: jnp.minimum((jnp.asarray(count, jnp.float32) + 1) / warmup, 1.0)


def _warmup_rsqrt(config: Config) -> optax.Schedule:
    rise, rsqrt = _rise(config), _rsqrt(config)
    return lambda count: rise(count) * rsqrt(count)


def _constant(config: Config) -> optax.Schedule:
    peak, rise = config.optimizer.learning_rate, _rise(config)
    return lambda count: peak * rise(count)


def _cosine(config: Config) -> optax.Schedule:
    optimizer = config.optimizer
    return _falling(
        config,
        optax.cosine_decay_schedule(
            optimizer.learning_rate, config.lr_decay_steps, optimizer.final_lr_fraction
        ),
    )


def _linear(config: Config) -> optax.Schedule:
    peak, final = config.optimizer.learning_rate, config.optimizer.final_lr_fraction
    return _falling(config, optax.linear_schedule(peak, peak * final, config.lr_decay_steps))


def _falling(config: Config, decay: optax.Schedule) -> optax.Schedule:
    """As 'constant', and in the last steps of the run `decay`."""
    return optax.join_schedules(
        [_constant(config), decay], [config.run.train_steps - config.lr_decay_steps]
    )


FORMULAS: dict[str, Callable[[Config], optax.Schedule]] = {
    "rsqrt": _rsqrt,
    "warmup_rsqrt": _warmup_rsqrt,
    "constant": _constant,
    "cosine": _cosine,
    "linear": _linear,
    "wsd": _linear,
}
