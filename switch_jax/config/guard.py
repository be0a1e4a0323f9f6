"""When a step is bad, and what follows."""

import dataclasses
from typing import Annotated

from switch_jax.utils.fields import Checked, Count, CountOrZero, Factor, Range


@dataclasses.dataclass(frozen=True)
class GuardConfig(Checked):
    """When a step is bad, and what follows from many.

    A step is bad if its loss or gradient norm is not finite or above its limit. The norm is that of
    the gradients of all parameters together, frozen ones too, before they are clipped. A bad step
    changes neither parameters nor the optimiser's state.

    The limits come from the logarithms of loss and norm in the last `spike_window` steps, without
    the newest quarter of these, so that a rise does not lift its own limit. A limit lies
    `spike_sigmas` standard deviations above the median, and at least at 1.1 times the median of the
    loss, or at 4 times that of the norm. The standard deviation is estimated from the 90th
    percentile, as for normal noise. So a few spikes do not widen it, and a loss that one step in
    ten has, as from the hard task of a mixture, is not a spike. There are no limits before the
    window is nearly full.

    A skipped step changes nothing, so the next step has the same loss and norm, apart from noise. A
    norm that stays up while the loss is within its limit is therefore accepted after 5 steps (fewer
    if `max_bad_steps` is 5 or less): the history of norms is moved to its level. A loss that
    stays up is never accepted.

    Attributes:
      spike_window: number of recent steps that loss and gradient norm are compared with.
      spike_sigmas: a step is bad, too, if its loss or norm is this many standard deviations above
        the median of these steps, under the further conditions of docs/bad_steps.md; None: only if
        one of the two is not finite.
      max_bad_steps: after this many bad steps in a row the run returns to its last checkpoint, and
        goes on with new data.
      max_rollbacks: at most this many returns without a good checkpoint in between; then the run
        stops. With 0 it stops instead of returning.
      dumped_batches: at most this many bad batches are written out for inspection at each start.
    """

    spike_window: Annotated[int, Range(2, 2**20)] = 128
    spike_sigmas: Factor | None = 6.0
    max_bad_steps: Count = 10
    max_rollbacks: CountOrZero = 2
    dumped_batches: CountOrZero = 10
