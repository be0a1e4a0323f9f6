"""How a run is stopped from outside, and how all hosts come to stop after the same step."""

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Callable
from types import FrameType

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.interrupts import raise_lost
from switch_jax.runtime.processes import announce, announced
from switch_jax.train_step.lowering import abstract_signals
from switch_jax.train_step.step import NO_STEP

NONE, INTERRUPTED, PREEMPTED = range(3)
# 75 is EX_TEMPFAIL of sysexits.h: try again. 130 is a shell's for Ctrl-C.
_EXIT_CODES = {INTERRUPTED: 130, PREEMPTED: 75}
_MEANINGS = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: PREEMPTED,
    signal.SIGHUP: PREEMPTED,
}


class Stopped(Exception):
    """The run was asked to stop; it has saved its state and goes on when started again.

    Attributes:
      exit_code: for the process: 75 after SIGTERM and SIGHUP, so that a launcher starts it again;
        130 after SIGINT.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        self.exit_code = _EXIT_CODES[signal_number]
        why = "interrupted" if signal_number == INTERRUPTED else "asked to terminate"
        state = f"the state of step {step} is saved" if step else "no step was done"
        super().__init__(f"{why}: {state}; the same command goes on from there")


class StopSignals:
    """Catches SIGTERM, SIGHUP and SIGINT, and hands them to the step, whose result all hosts share.

    The first signal is only noted: the step that gets it says so in `Metrics.signal` to every host.
    A second SIGINT ends the process at once. SIGUSR1 asks for a profiler trace. SIGHUP, of a
    terminal that is closed, stays ignored where it was, as under nohup.

    A host whose data do not come cannot take part in that step as it is. It learns through the
    coordinator that a signal came to another one, see `is_wanted`, and then takes part with padding
    and the word that no step is to be done.
    """

    def __init__(self, mesh: Mesh, request_trace: Callable[[], None]) -> None:
        self._signal = NONE
        self._others = NONE
        self._shape = abstract_signals(mesh)
        self._arrays = {NONE: self._array(NONE)}
        self._request_trace = request_trace
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "StopSignals":
        """Raises KeyboardInterrupt where one has come before and got lost."""
        if threading.current_thread() is not threading.main_thread():  # it may set no handlers
            return self
        raise_lost()
        if jax.process_count() > 1:
            self._announce_signals()
        self._handle(signal.SIGTERM, self._terminate)
        self._handle(signal.SIGINT, self._interrupt)
        self._handle(signal.SIGUSR1, lambda *_: self._request_trace())
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._handle(signal.SIGHUP, self._hang_up)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def array(self, no_step: bool = False) -> jax.Array:
        """What the next step gets: int32 [devices], this host's signal on each of its own.

        Args:
          no_step: this host has no batch, see `step.NO_STEP`.
        """
        number = max(self._signal, self._others) + (NO_STEP if no_step else 0)
        if number not in self._arrays:
            self._arrays[number] = self._array(number)
        return self._arrays[number]

    def is_wanted(self) -> bool:
        """Whether a signal has come, to this host or another; asks the coordinator."""
        self._others = max(map(int, announced("signal")), default=NONE)
        return max(self._signal, self._others) != NONE

    def _array(self, number: int) -> jax.Array:
        values = np.full(self._shape.shape, number, np.int32)
        return jax.make_array_from_callback(
            self._shape.shape, self._shape.sharding, lambda index: values[index]
        )

    def _handle(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        self._closing.callback(signal.signal, number, signal.signal(number, handler))

    def _announce_signals(self) -> None:
        """Has a thread tell the other hosts of signals.

        Python calls the handlers in the main thread alone, and not while that waits in JAX for a
        step: one that another host has no data for may never end.
        """
        read, write = os.pipe()
        os.set_blocking(write, False)
        self._closing.callback(os.close, write)
        previous = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._closing.callback(signal.set_wakeup_fd, previous)

        def listen() -> None:
            with open(read, "rb", buffering=0) as numbers:
                while number := numbers.read(1):
                    if number[0] in _MEANINGS:
                        with contextlib.suppress(RuntimeError):  # the coordinator is gone
                            announce("signal", str(_MEANINGS[signal.Signals(number[0])]))

        threading.Thread(target=listen, name="signals", daemon=True).start()

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._signal = PREEMPTED

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        self._signal = PREEMPTED
        # What is printed to a terminal that is gone would be an error.
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nothing:
            for descriptor in (1, 2):
                if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                    os.dup2(nothing.fileno(), descriptor)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._signal != NONE:
            raise KeyboardInterrupt
        self._signal = INTERRUPTED
        # No print: the signal may have come in the middle of one.
        text = b"\nstopping after this step, with a checkpoint; Ctrl-C again stops at once\n"
        with contextlib.suppress(OSError):  # who reads it may be gone: Ctrl-C reaches `| tee` too
            os.write(2, text)
