"""Profiler traces of a few steps, planned or asked for while a run is going."""

import os
from typing import Any

import jax

_STEPS_ON_REQUEST = 5


class Profiler:
    """Traces some steps into a folder that TensorBoard reads.

    Nothing is raised where a trace cannot be written, say on a full disk: the run goes on.
    """

    def __init__(self, folder: str | os.PathLike[str], steps: tuple[int, int] | None) -> None:
        """Traces nothing yet.

        Args:
          folder: the run's `tensorboard` folder; traces go to `plugins/profile` in it.
          steps: the first and the last optimiser step to trace, counted from 1; None: none.
        """
        self._folder = os.fspath(folder)
        self._steps = steps
        self._requested = False
        self._running: tuple[int, int] | None = None
        self._broken = False

    def request(self) -> None:
        """Asks for a trace of the next 5 steps; for signal handlers: only sets a flag."""
        self._requested = True

    def before(self, step: int) -> None:
        """To be called before `step` is dispatched; starts a trace where one is due."""
        if self._running or self._broken:
            return
        if self._requested:
            self._requested = False
            self._running = (step, step + _STEPS_ON_REQUEST - 1)
        elif self._steps and self._steps[0] <= step <= self._steps[1]:
            self._running = (step, self._steps[1])
        else:
            return
        try:
            jax.profiler.start_trace(self._folder)
        except RuntimeError:  # another trace is going on in this process
            self._running, self._broken = None, True

    def after(self, step: int, result: Any) -> str | None:
        """To be called after `step` was dispatched; ends the trace with its last step.

        Args:
          step: optimiser step.
          result: arrays of the step; only the last step of a trace waits for them.

        Returns:
          Where the trace is and how to look at it, if one has ended.
        """
        if self._running is None or step < self._running[1]:
            return None
        jax.block_until_ready(result)
        return self._stop(self._running[0], step)

    def annotate(self, step: int) -> jax.profiler.StepTraceAnnotation:
        """A context that marks the step in a trace; costs next to nothing without one."""
        return jax.profiler.StepTraceAnnotation("train", step_num=step)

    def close(self) -> None:
        """Stops a trace that is running."""
        if self._running:
            self._stop(*self._running)

    def _stop(self, first: int, last: int) -> str:
        self._running = None
        try:
            jax.profiler.stop_trace()
        except RuntimeError as error:
            self._broken = True  # JAX believes that the trace goes on, and would refuse another
            return f"the trace of steps {first} to {last} is lost: {error}"
        return (
            f"the trace of steps {first} to {last} is in {self._folder}: tensorboard --logdir "
            f"{self._folder}, tab Profile (pip install xprof, once tensorboard-plugin-profile)"
        )
