"""The bad-step guard: decides inside the compiled step whether a step is bad and is skipped."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from switch_jax.config import GuardConfig

# The 90th percentile of normal noise, in standard deviations above the mean.
_UPPER_TENTH = 1.2816
# The limits of loss and gradient norm are at least this many times their median.
_MIN_RATIO = np.array([1.1, 4.0], np.float32)
# And at least these: the losses of a model that is nearly perfect differ by large factors.
_MIN_LIMIT = np.array([0.01, 0.0], np.float32)
_IS_NORM = np.array([False, True])
# This many steps are skipped for their gradient norm alone; then the norm is accepted.
_NORM_PATIENCE = 5


class Guard(NamedTuple):
    """What the guard remembers; part of the training state.

    Attributes:
      recent: [2, window] float32, logarithms of loss and gradient norm, the newest last: of the
        good steps, and of the first of bad steps in a row (the next ones have the same parameters,
        and add nothing new); infinite where there was no step yet.
      good, in_a_row: int32, good steps so far, and bad steps since the last of them.
      norm_above: int32, up by 1 after a step of which only the norm was above its limit, down by 1
        after another, from 0 to the number at which such a norm is accepted.
    """

    recent: Any
    good: Any
    in_a_row: Any
    norm_above: Any


def init_guard(config: GuardConfig) -> Guard:
    """The guard before the first step."""
    zero = jnp.zeros([], jnp.int32)
    return Guard(jnp.full([2, config.spike_window], jnp.inf, jnp.float32), zero, zero, zero)


def judge(
    guard: Guard, config: GuardConfig, loss: jax.Array, gradient_norm: jax.Array
) -> tuple[jax.Array, jax.Array, Guard]:
    """Judges a step by its loss and the norm of all gradients before clipping, float32 scalars.

    Returns whether it is bad, bool; the limits of loss and norm, [2] float32, infinite where there
    are none; and the guard after the step.
    """
    values = jnp.stack([loss, gradient_norm])
    logs = jnp.log(jnp.maximum(values, 1e-30))
    finite = jnp.isfinite(values).all()
    medians, limits = _limits(guard.recent, config)
    is_spike_of_loss, is_spike_of_norm = values > limits
    is_spike_of_norm_alone = finite & is_spike_of_norm & ~is_spike_of_loss
    patience = min(_NORM_PATIENCE, config.max_bad_steps - 1)
    has_outlasted_patience = is_spike_of_norm_alone & (guard.norm_above == patience)
    bad = ~finite | is_spike_of_loss | (is_spike_of_norm_alone & ~has_outlasted_patience)

    # The limit of a norm that is believed moves to the new level.
    rise = jnp.where(_IS_NORM & has_outlasted_patience, logs - medians, 0.0)  # [2]
    moved = guard.recent + rise[:, None]
    new = jnp.concatenate([moved[:, 1:], logs[:, None]], axis=1)
    is_remembered = finite & (~bad | (guard.in_a_row == 0))
    return (
        bad,
        limits,
        Guard(
            jnp.where(is_remembered, new, guard.recent),
            guard.good + jnp.where(bad, 0, 1),
            jnp.where(bad, guard.in_a_row + 1, 0),
            jnp.clip(guard.norm_above + jnp.where(is_spike_of_norm_alone, 1, -1), 0, patience),
        ),
    )


def _limits(recent: jax.Array, config: GuardConfig) -> tuple[jax.Array, jax.Array]:
    """Medians of the logarithms, and limits, both float32 [2]."""
    if config.spike_sigmas is None:
        return jnp.zeros(2), jnp.full(2, jnp.inf)
    older = jnp.sort(recent[:, : config.spike_window - config.spike_window // 4], stable=False)
    length = older.shape[1]
    medians, upper = older[:, length // 2], older[:, length * 9 // 10]
    rise = jnp.maximum(config.spike_sigmas / _UPPER_TENTH * (upper - medians), np.log(_MIN_RATIO))
    limits = jnp.maximum(jnp.exp(medians + rise), _MIN_LIMIT)
    return medians, jnp.where(jnp.isfinite(upper), limits, jnp.inf)
