"""A check, what it found, and how checks are run one after the other."""

import dataclasses
import enum
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from switch_jax.errors import UserError
from switch_jax.runtime.processes import gather


class Verdict(enum.StrEnum):
    """What a check says."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"  # it does not apply to this machine


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a check found.

    Attributes:
      name: of the check, the same on every machine.
      verdict: whether it is as it should be.
      text: one line for people, with the numbers.
      numbers: the same for programs; speeds in bytes or FLOPs a second, times in seconds.
      advice: what to do where it has failed.
      seconds: how long the check took.
    """

    name: str
    verdict: Verdict
    text: str
    numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    advice: str = ""
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

    Yields:
      What each found.
    """
    for check in checks:
        if quick and check.is_long:
            continue
        start = time.monotonic()
        try:
            finding = check.run()
        except Exception as error:  # whatever a broken machine raises
            finding = Finding(check.name, Verdict.FAILED, _first_line(error))
        finding = dataclasses.replace(finding, seconds=round(time.monotonic() - start, 3))
        yield _of_all(finding)


def _of_all(finding: Finding) -> Finding:
    """The first finding of all processes that failed, or else this one."""
    failed = finding.verdict == Verdict.FAILED
    words = [text for text in gather(str(finding.text) if failed else "") if text]
    if words and not failed:
        return dataclasses.replace(finding, verdict=Verdict.FAILED, text=words[0])
    return finding


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    line = text[0] if text else "no message"
    return line if isinstance(error, UserError) else f"{type(error).__name__}: {line:.300}"
