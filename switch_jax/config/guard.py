"""When a step is bad, and what follows."""

import dataclasses

from switch_jax.fields import COUNT, FACTOR, Range, check_fields


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """When a step is bad, and what follows from many.

    A step is bad if its loss or gradient norm is not finite or above its limit. A bad step changes
    neither parameters nor the optimiser's state.

    The limits come from the logarithms of loss and norm in the last `window` steps, without the
    newest quarter of these, so that a rise does not lift its own limit. A limit lies above the
    median by `sigmas` standard deviations, and at 1.1 times the median of the loss or 3 times that
    of the norm at least. The deviation is that of normal noise with the same upper tenth: a few
    spikes do not widen it, and a loss that one step in ten has, as those of the hard task of a
    mixture, is no spike. There are no limits before the window is nearly full.

    A skipped step changes nothing, so the next one has the same loss and norm, noise apart. A norm
    that stays up while the loss is within its limit is therefore believed after 5 steps (fewer
    where `bad_steps_in_a_row` is not above 5): the history of norms is moved to its level. A loss
    that stays up is never believed.

    Attributes:
      window: steps that loss and gradient norm are compared with.
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
