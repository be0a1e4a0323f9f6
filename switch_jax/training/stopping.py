"""How a run is stopped from outside, and how all hosts come to stop after the same step."""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.training.lowering import abstract_signals

NONE, INTERRUPTED, PREEMPTED = range(3)
# 75 is EX_TEMPFAIL of sysexits.h: try again. 130 is a shell's for Ctrl-C.
_EXIT_CODES = {INTERRUPTED: 130, PREEMPTED: 75}


class Stopped(Exception):
    """The run was asked to stop; it has saved its state and goes on when started again.

    Attributes:
      exit_code: for the process: 75 after SIGTERM, so that a launcher starts it again; 130 after
        SIGINT.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        self.exit_code = _EXIT_CODES[signal_number]
        why = "interrupted" if signal_number == INTERRUPTED else "asked to terminate"
        super().__init__(
            f"{why}: the state of step {step} is saved; the same command goes on from there"
        )


class StopSignals:
    """Catches SIGTERM and SIGINT, and hands them to the step, whose result all hosts share.

    The first signal is only noted: the step that is told of it says so in `Metrics.signal` to every
    host. A second SIGINT ends the process at once. SIGUSR1 asks for a profiler trace.
    """

    def __init__(self, mesh: Mesh, request_trace: Callable[[], None]) -> None:
        self._signal = NONE
        self._shape = abstract_signals(mesh)
        self._arrays = {NONE: self._array(NONE)}
        self._request_trace = request_trace
        self._previous: dict[int, signal.Handlers] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():  # others may set no handlers
            for number, handler in (
                (signal.SIGTERM, self._terminate),
                (signal.SIGINT, self._interrupt),
                (signal.SIGUSR1, lambda *_: self._request_trace()),
            ):
                self._previous[number] = signal.signal(number, handler)  # type: ignore[assignment]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def array(self) -> jax.Array:
        """What the next step is told: int32 [devices], this host's signal on each of its own."""
        number = self._signal
        if number not in self._arrays:
            self._arrays[number] = self._array(number)
        return self._arrays[number]

    def _array(self, number: int) -> jax.Array:
        values = np.full(self._shape.shape, number, np.int32)
        return jax.make_array_from_callback(
            self._shape.shape, self._shape.sharding, lambda index: values[index]
        )

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._signal = PREEMPTED

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._signal != NONE:
            raise KeyboardInterrupt
        self._signal = INTERRUPTED
        # No print: the signal may have come in the middle of one.
        os.write(2, b"\nstopping after this step, with a checkpoint; Ctrl-C again stops at once\n")
