"""Signals that stop a run, and how all hosts stop after the same step."""

import contextlib
import os
import signal
import stat
import threading
from collections.abc import Callable
from types import FrameType

import jax
from jax.sharding import Mesh

from switch_jax import exit_codes
from switch_jax.runtime.multihost import publish, published
from switch_jax.train_step.lowering import put_signals
from switch_jax.train_step.step import HostSignals
from switch_jax.utils.interrupts import raise_if_interrupted

NONE, INTERRUPTED, PREEMPTED = range(3)
_EXIT_CODES = {INTERRUPTED: exit_codes.INTERRUPTED, PREEMPTED: exit_codes.PREEMPTED}
_MEANINGS = {
    signal.SIGINT: INTERRUPTED,
    signal.SIGTERM: PREEMPTED,
    signal.SIGHUP: PREEMPTED,
}


class Stopped(Exception):
    """The run was asked to stop. Its state is saved, and it continues when it is started again.

        try:
            switch_jax.train(config)
        except switch_jax.Stopped as stopped:
            sys.exit(stopped.exit_code)

    Attributes:
      exit_code: of the process: 75 after SIGTERM and SIGHUP, so that a launcher starts it again;
        130 after SIGINT.
    """

    def __init__(self, signal_number: int, step: int) -> None:
        self.exit_code = _EXIT_CODES[signal_number]
        why = "interrupted" if signal_number == INTERRUPTED else "asked to terminate"
        state = f"the state of step {step} is saved" if step else "no step was done"
        super().__init__(f"{why}: {state}; the same command goes on from there")


class StopSignals:
    """Catches SIGTERM, SIGHUP and SIGINT, and passes them to the step, whose metrics all hosts see.

    The first signal is only noted: the next step reports it to every host in `Metrics.signals`. A
    second SIGINT goes to the handler that was there before. SIGUSR1 requests a profiler trace.
    SIGHUP stays ignored if it was ignored before, as under nohup.

    A host that waits for data learns from the coordinator that another one got a signal
    (`is_wanted`), and takes part with padding, telling the step that it has no batch.
    """

    def __init__(self, mesh: Mesh, request_trace: Callable[[], None]) -> None:
        self._signal = NONE
        self._others = NONE
        self._mesh = mesh
        self._arrays: dict[tuple[int, bool], HostSignals] = {}
        self._request_trace = request_trace
        self._closing = contextlib.ExitStack()

    def __enter__(self) -> "StopSignals":
        """Raises KeyboardInterrupt if one came earlier and was swallowed."""
        if threading.current_thread() is not threading.main_thread():  # only it may set handlers
            return self
        raise_if_interrupted()
        if jax.process_count() > 1:
            self._announce_signals()
        self._handle(signal.SIGTERM, self._terminate)
        self._interrupt_before = signal.getsignal(signal.SIGINT)
        self._handle(signal.SIGINT, self._interrupt)
        self._handle(signal.SIGUSR1, lambda *_: self._request_trace())
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._handle(signal.SIGHUP, self._hang_up)
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def arrays(self, *, no_batch: bool = False) -> HostSignals:
        """What this host tells the step; `no_batch`: whether it has no batch."""
        numbers = max(self._signal, self._others), no_batch
        if numbers not in self._arrays:
            self._arrays[numbers] = put_signals(self._mesh, *numbers)
        return self._arrays[numbers]

    def is_wanted(self) -> bool:
        """Whether this host or another has got a signal; asks the coordinator."""
        self._others = max(map(int, published("signal")), default=NONE)
        return max(self._signal, self._others) != NONE

    def _handle(self, number: int, handler: Callable[[int, FrameType | None], None]) -> None:
        self._closing.callback(signal.signal, number, signal.signal(number, handler))

    def _announce_signals(self) -> None:
        """Starts a thread that reports signals to the other hosts.

        Python calls signal handlers only in the main thread, and not while it waits in JAX for a
        step. If another host has no data, such a step may never end.
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
                            publish("signal", str(_MEANINGS[signal.Signals(number[0])]))

        threading.Thread(target=listen, name="signals", daemon=True).start()

    def _terminate(self, number: int, frame: FrameType | None) -> None:
        self._signal = PREEMPTED

    def _hang_up(self, number: int, frame: FrameType | None) -> None:
        self._signal = PREEMPTED
        # Printing to a terminal that is gone would raise an error.
        with contextlib.suppress(OSError), open(os.devnull, "wb") as nothing:
            for descriptor in (1, 2):
                if stat.S_ISCHR(os.fstat(descriptor).st_mode):
                    os.dup2(nothing.fileno(), descriptor)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        if self._signal != NONE:
            if callable(self._interrupt_before):  # the program's handler ends it if need be
                self._interrupt_before(number, frame)
            raise KeyboardInterrupt
        self._signal = INTERRUPTED
        # Not print(): the signal may have come in the middle of another print.
        text = b"\nstopping after this step, with a checkpoint; Ctrl-C again stops in seconds\n"
        with contextlib.suppress(OSError):  # Ctrl-C may have ended the reader too, as in `| tee`
            os.write(2, text)
