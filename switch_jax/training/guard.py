"""Keeps a bad step's update out of the model, inside the compiled step."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from switch_jax.fields import COUNT, FACTOR, Range, check_fields


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """When a step is bad, and what follows from many.

    A step is bad if its loss or gradient norm is not finite, or lies more than `sigmas` standard
    deviations above the mean of the last `window` good steps (once there were as many). It changes
    neither parameters nor the optimiser's state.

    Attributes:
      window: good steps that loss and gradient norm are compared with.
      sigmas: None = only what is not finite is bad.
      bad_steps_in_a_row: with so many the run goes back to its last checkpoint, with new data.
      rollbacks: so often without a checkpoint in between; then, or at once with 0, the run stops.
      dumped_batches: most bad batches that each start of the run writes out for inspection.
    """

    window: int = 128
    sigmas: float | None = 6.0
    bad_steps_in_a_row: int = 10
    rollbacks: int = 2
    dumped_batches: int = 10

    def __post_init__(self) -> None:
        """Raises FieldError on values that make no sense."""
        check_fields(
            self,
            window=Range(2, 2**20),
            sigmas=FACTOR,
            bad_steps_in_a_row=COUNT,
            rollbacks=Range(0, 2**31 - 1),
            dumped_batches=Range(0, 2**31 - 1),
        )


class Guard(NamedTuple):
    """What the guard remembers; part of the training state.

    Attributes:
      history: [2, window] float32, loss and gradient norm of the last good steps, as a ring.
      good: int32, good steps so far.
      skipped: int32, bad steps so far.
      in_a_row: int32, bad steps since the last good one.
    """

    history: Any
    good: Any
    skipped: Any
    in_a_row: Any


def init_guard(config: GuardConfig) -> Guard:
    """Of a run that has done no step."""
    zero = jnp.zeros([], jnp.int32)
    return Guard(jnp.zeros([2, config.window], jnp.float32), zero, zero, zero)


def judge(
    guard: Guard, config: GuardConfig, loss: jax.Array, gradient_norm: jax.Array
) -> tuple[jax.Array, Guard]:
    """Whether a step with this loss and gradient norm is bad, and the guard after it."""
    values = jnp.stack([loss, gradient_norm])
    bad = ~jnp.isfinite(values)
    if config.sigmas is not None:
        limit = guard.history.mean(1) + config.sigmas * guard.history.std(1)
        bad |= (guard.good >= config.window) & (values > limit)
    bad = bad.any()
    ring = jnp.arange(config.window) == guard.good % config.window
    history = jnp.where(ring & ~bad, values[:, None], guard.history)
    skipped = bad.astype(jnp.int32)
    return bad, Guard(
        history,
        guard.good + 1 - skipped,
        guard.skipped + skipped,
        (guard.in_a_row + 1) * skipped,
    )
