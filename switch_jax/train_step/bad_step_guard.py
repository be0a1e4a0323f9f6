"""Keeps a bad step's update out of the model, inside the compiled step."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from switch_jax.config import GuardConfig

# Of normal noise a tenth lies as many standard deviations above the mean.
_UPPER_TENTH = 1.2816
# Loss and gradient norm are never spikes below so many times their median.
_LEAST_RATIO = np.array([1.1, 3.0], np.float32)
# Nor are they below these: batches of a model that makes hardly a mistake differ by large factors.
_LEAST_LIMIT = np.array([0.01, 0.0], np.float32)
_IS_NORM = np.array([False, True])
# So many steps are skipped for their gradient norm alone before it is believed.
_NORM_PATIENCE = 5


class Guard(NamedTuple):
    """What the guard remembers; part of the training state.

    Attributes:
      recent: [2, window] float32, logarithms of loss and gradient norm, the newest last: of the
        good steps and of the first bad one of each row (the next ones are of the same model, and
        say nothing new); infinite where there was no step yet.
      good: int32, good steps so far.
      in_a_row: int32, bad steps since the last good one.
      norm_above: int32, 1 more after each step whose norm alone was above its limit, 1 less after
        each other one; from 0 to the number at which such a norm is believed.
    """

    recent: Any
    good: Any
    in_a_row: Any
    norm_above: Any


def init_guard(config: GuardConfig) -> Guard:
    """Of a run that has done no step."""
    zero = jnp.zeros([], jnp.int32)
    return Guard(jnp.full([2, config.window], jnp.inf, jnp.float32), zero, zero, zero)


def judge(
    guard: Guard, config: GuardConfig, loss: jax.Array, gradient_norm: jax.Array
) -> tuple[jax.Array, jax.Array, Guard]:
    """Judges a step by its loss and gradient norm, float32 scalars.

    Returns:
      Whether it is bad, bool; the limits of loss and norm, [2] float32, infinite where there are
      none; and the guard after the step.
    """
    values = jnp.stack([loss, gradient_norm])
    logs = jnp.log(jnp.maximum(values, 1e-30))
    finite = jnp.isfinite(values).all()
    medians, limits = _limits(guard.recent, config)
    loss_above, norm_above = values > limits
    norm_alone = finite & norm_above & ~loss_above
    patience = min(_NORM_PATIENCE, config.bad_steps_in_a_row - 1)
    believed = norm_alone & (guard.norm_above == patience)
    bad = ~finite | loss_above | (norm_alone & ~believed)

    moved = guard.recent + jnp.where(_IS_NORM & believed, logs - medians, 0.0)[:, None]
    new = jnp.concatenate([moved[:, 1:], logs[:, None]], axis=1)
    enters = finite & (~bad | (guard.in_a_row == 0))
    return (
        bad,
        limits,
        Guard(
            jnp.where(enters, new, guard.recent),
            guard.good + jnp.where(bad, 0, 1),
            jnp.where(bad, guard.in_a_row + 1, 0),
            jnp.clip(guard.norm_above + jnp.where(norm_alone, 1, -1), 0, patience),
        ),
    )


def _limits(recent: jax.Array, config: GuardConfig) -> tuple[jax.Array, jax.Array]:
    """Medians of the logarithms, and limits; each [2]."""
    if config.sigmas is None:
        return jnp.zeros(2), jnp.full(2, jnp.inf)
    older = jnp.sort(recent[:, : config.window - config.window // 4], stable=False)
    length = older.shape[1]
    medians, upper = older[:, length // 2], older[:, length * 9 // 10]
    rise = jnp.maximum(config.sigmas / _UPPER_TENTH * (upper - medians), np.log(_LEAST_RATIO))
    limits = jnp.maximum(jnp.exp(medians + rise), _LEAST_LIMIT)
    return medians, jnp.where(jnp.isfinite(upper), limits, jnp.inf)
