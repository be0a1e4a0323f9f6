"""Profiler traces of a few steps, planned in the config or requested during the run."""

import os
from typing import Any

import jax
from etils import epath

from switch_jax.storage import Spool

_STEPS_ON_REQUEST = 5


class Profiler:
    """Traces some steps for TensorBoard; a trace that cannot be written raises nothing."""

    def __init__(self, folder: str | os.PathLike[str], steps: tuple[int, int] | None) -> None:
        """Traces nothing yet; `steps` are the first and the last to trace, from 1; None: none."""
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
        """To be called before `step` is dispatched; starts a trace if one is due."""
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
        """To be called after `step` was dispatched; ends the trace with its last step.

        Only that one waits for `result`, the step's arrays. Returns where the trace is.
        """
        if self._running is None or step < self._running[1]:
            return None
        jax.block_until_ready(result)
        return self._stop(self._running[0], step)

    def annotate(self, step: int) -> jax.profiler.StepTraceAnnotation:
        """A context that marks the step in a trace; without a trace it costs almost nothing."""
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
