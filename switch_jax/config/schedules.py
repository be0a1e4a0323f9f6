"""The learning-rate schedules by name, and what is known of each without its formula."""

from typing import Literal, NamedTuple


class Schedule(NamedTuple):
    """A schedule; `optim.schedules` has its formula.

    Attributes:
      rises: the rate rises linearly up to WARMUP_STEPS.
      falls: 'after_warmup': from there to the end of the run; 'at_the_end': over its last
        DECAY_STEPS. None: what the rate does has nothing to do with the end of the run.
    """

    rises: bool
    falls: Literal["after_warmup", "at_the_end"] | None = None


SCHEDULES = {
    "rsqrt": Schedule(rises=False),
    "warmup_rsqrt": Schedule(rises=True),
    "constant": Schedule(rises=True),
    "cosine": Schedule(rises=True, falls="after_warmup"),
    "linear": Schedule(rises=True, falls="after_warmup"),
    "wsd": Schedule(rises=True, falls="at_the_end"),
}
# Those that fall to a final rate, and of them those whose fall has a length of its own.
ENDING = tuple(name for name, schedule in SCHEDULES.items() if schedule.falls)
FALLING_AT_THE_END = tuple(name for name in ENDING if SCHEDULES[name].falls == "at_the_end")
