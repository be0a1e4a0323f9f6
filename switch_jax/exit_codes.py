"""Exit codes of all commands; docs/exit_codes.md says what to do after each."""

import signal

DONE = 0
FAILED = 1  # a fault that may pass, or a bug; of `doctor`: a check has failed
MISTAKE = 2  # the next start would fail in the same way
DOES_NOT_FIT = 3  # of `plan`: a step does not fit in memory
NEEDS_ATTENTION = 4  # of `status`: a run has failed or is stalled
PREEMPTED = 75  # stopped with its state saved: EX_TEMPFAIL of sysexits.h, try again
UNREACHABLE = 255  # of ssh, if it cannot connect or the connection breaks

# As a shell tells of signals.
INTERRUPTED, KILLED, TERMINATED, OUTPUT_LOST = (
    128 + number for number in (signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGPIPE)
)

# A variable: the path, but for the exit code at its end, of a file that each process makes that
# ends by itself.
ENDED_WITH = "SWITCH_JAX_ENDED_WITH"
