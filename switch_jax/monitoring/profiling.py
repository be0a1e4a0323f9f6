"""Records profiler traces of a few steps, by the config or requested during the run."""

import os
from typing import Any

import jax
from etils import epath

from switch_jax.storage import Spool

_STEPS_ON_REQUEST = 5


class Profiler:
    """Traces some steps for TensorBoard; a trace that cannot be written raises nothing."""

    def __init__(self, folder: str | os.PathLike[str], steps: tuple[int, int] | None) -> None:
        """Plans to trace `steps`, the first and the last, counted from 1; None for no steps."""
        self._folder = epath.Path(folder)
        self._spool: Spool | None = None
        self._steps = steps
        self._requested = False
        self._running: tuple[int, int] | None = None
        self._failed = False

    def request(self) -> None:
        """Requests a trace of the next 5 steps; only sets a flag, as a signal handler may."""
        self._requested = True

    def before(self, step: int) -> None:
        """Starts a trace if one is due; called before `step` is dispatched."""
        if self._running or self._failed:
            return
        if self._requested:
            self._requested = False
            self._running = (step, step + _STEPS_ON_REQUEST - 1)
        elif self._steps and self._steps[0] <= step <= self._steps[1]:
            self._running = (step, self._steps[1])
        else:
            return
        try:
            self._spool = self._spool or Spool(self._folder)
            jax.profiler.start_trace(str(self._spool.local))
        except (OSError, RuntimeError):  # it cannot be written, or another trace is running
            self._running, self._failed = None, True

    def after(self, step: int, result: Any) -> str | None:
        """Ends the trace after its last step, and says where it is; called after the dispatch.

        Only the last step waits for `result`, its arrays.
        """
        if self._running is None or step < self._running[1]:
            return None
        jax.block_until_ready(result)
        return self._stop(self._running[0], step)

    def annotate(self, step: int) -> jax.profiler.StepTraceAnnotation:
        """Returns a context that marks the step in a trace, and otherwise costs almost nothing."""
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def close(self) -> None:
        if self._running:
            self._stop(*self._running)

    def _stop(self, first: int, last: int) -> str:
        self._running = None
        try:
            jax.profiler.stop_trace()
            assert self._spool is not None
            self._spool.send()
        except (OSError, RuntimeError) as error:
            self._failed = True  # JAX takes the trace for running, and would refuse another
            return f"the trace of steps {first} to {last} is lost: {error}"
        return (
            f"the trace of steps {first} to {last} is in {self._folder}: tensorboard --logdir "
            f"{self._folder}, tab Profile (pip install xprof, once tensorboard-plugin-profile)"
        )
