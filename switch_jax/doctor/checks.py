"""A check, what it found, and how checks are run one after the other."""

import dataclasses
import enum
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import jax

from switch_jax.errors import LostHostError, UserError
from switch_jax.runtime.processes import barrier, is_first, publish, published
from switch_jax.terminal import seconds_shown

# Seconds between the first process that has done a check and the last.
_MOST_APART = 120


class Verdict(enum.StrEnum):
    """What a check says."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"  # it does not apply to this machine


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
      verdict: whether it is as it should be.
      text: one line for people, with the numbers.
      numbers: the same for programs; speeds in bytes or FLOPs a second, times in seconds.
      advice: what to do where it has failed.
      name: of the check, the same on every machine; `run_checks` sets this and the time.
      seconds: how long the check took.
    """

    verdict: Verdict
    text: str
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    advice: str = ""
    name: str = ""
    seconds: float = 0.0

    def __str__(self) -> str:
        advice = f"; {self.advice}" if self.advice and self.verdict == Verdict.FAILED else ""
        return f"{self.verdict:7}  {self.name}: {self.text}{advice}"


@dataclasses.dataclass(frozen=True)
class Check:
    """One check.

    Attributes:
      name: of its finding.
      run: does it. An exception is a finding, too: that it failed.
      is_long: left out by --quick.
    """

    name: str
    run: Callable[[], Finding]
    is_long: bool = False


def run_checks(checks: Iterable[Check], *, quick: bool = False) -> Iterator[Finding]:
    """Runs the checks in their order, on all processes together.

    A check that raises has failed; the ones behind it are still run. It has failed, too, where it
    did on another process, whose words are taken then.

    What cannot be helped: where a check raises on one process that the others wait for in an
    exchange, nothing takes these out of their program. The one that raised waits for them, outside
    of a program, and after two minutes ends the command with its words; that ends the others, too.

    Args:
      checks: the same on all processes.
      quick: leave out those that take long.

    Yields:
      What each found, the same verdict on all processes.

    Raises:
      LostHostError: another process did not end a check in time.
    """
    for number, check in enumerate(checks):
        if quick and check.is_long:
            continue
        start = time.monotonic()
        try:
            with seconds_shown(f"checking {check.name}") if is_first() else nullcontext():
                finding = check.run()
        except Exception as error:  # whatever a broken machine raises
            finding = Finding(Verdict.FAILED, first_line(error))
        seconds = round(time.monotonic() - start, 3)
        finding = dataclasses.replace(finding, name=check.name, seconds=seconds)
        yield _of_all(number, finding)


def _of_all(number: int, finding: Finding) -> Finding:
    """The finding of the first process that failed, or else this one.

    It goes through the coordinator, since the devices may wait for a process that has raised.
    """
    if jax.process_count() == 1:
        return finding
    place = f"doctor/{number}"
    failed = finding.verdict == Verdict.FAILED
    publish(place, json.dumps([jax.process_index(), failed, finding.text, finding.advice]))
    try:
        barrier(place, _MOST_APART)
    except jax.errors.JaxRuntimeError as error:
        here = f"; here it failed: {finding.text}" if failed else ""
        raise LostHostError(
            f"another process did not end the check '{finding.name}' within {_MOST_APART} seconds "
            f"of this one{here}; run `switch_jax doctor` on each host alone, without --multihost"
        ) from error
    for index, has_failed, text, advice in sorted(map(json.loads, published(place))):
        if has_failed:
            text = f"on process {index}: {text}"
            return dataclasses.replace(finding, verdict=Verdict.FAILED, text=text, advice=advice)
    return finding


def first_line(error: Exception) -> str:
    """What an exception says, in a line."""
    text = str(error).strip().splitlines()
    line = text[0] if text else "no message"
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line:.300}"
