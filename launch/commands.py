"""The commands and files that start a job: all of them are printed before the first one is run."""

import dataclasses
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from switch_jax.launch.console import log
from switch_jax.storage import explain_write_errors
from switch_jax.utils.errors import UserError

_LONGEST_LINE = 100
_TRIES = 20  # before a command that keeps failing is an error: the network is gone
_RETRY_SECONDS = 30.0  # between two tries
_ESCAPES = {"\\": r"\\", "'": r"\'", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


@dataclasses.dataclass(frozen=True)
class Command:
    """A command that runs on this machine; `why` says what it is for, and when it runs."""

    argv: tuple[str, ...]
    why: str


@dataclasses.dataclass(frozen=True)
class File:
    """A file for a command to read; its path is relative to the current directory."""

    path: str
    text: str
    why: str


@dataclasses.dataclass(frozen=True)
class Piped:
    """A command that reads these lines; it is printed for a person, and not run here."""

    lines: tuple[str, ...]
    argv: tuple[str, ...]
    why: str


Step = Command | File | Piped


def render(title: str, steps: Iterable[Step]) -> str:
    """A script for bash of the steps. The reason for each step is a comment."""
    return "\n".join([f"# {title}", *(_render_step(step) for step in steps)]) + "\n"


def _render_step(step: Step) -> str:
    why = f"\n# {step.why}\n"
    if isinstance(step, Command):
        return why + shell_lines(step.argv)
    if isinstance(step, Piped):
        lines = " \\\n    ".join(map(quote, ("%s\\n", *step.lines)))
        return f"{why}printf {lines} \\\n    | {shell_lines(step.argv)}"
    text, end = step.text.rstrip(), "END"
    while end in text.splitlines():  # a line of the file may be the same
        end += "_"
    folder = f"mkdir -p {quote(str(Path(step.path).parent))}"
    return f"{why}{folder}\ncat > {quote(step.path)} <<'{end}'\n{text}\n{end}"


def shell_lines(argv: Sequence[str]) -> str:
    """The command quoted for bash. A long one has a line for each flag."""
    words = [quote(word) for word in argv]
    if len(" ".join(words)) <= _LONGEST_LINE:
        return " ".join(words)
    flags = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    return " \\\n    ".join([" ".join(words[:flags]), *words[flags:]])


def shell_line(argv: Sequence[str]) -> str:
    """The command quoted for bash, on one line, whatever characters its words contain."""
    return " ".join(map(quote, argv))


def quote(word: str) -> str:
    """The word quoted for bash, on one line. In --name=value only the value is in quotes.

    Line breaks and other invisible characters are escaped, as in $'a\\nb'. So a word can neither
    end its line nor look like another word on a terminal.
    """
    flag = re.match(r"--[\w.-]+=(?=.)", word, re.ASCII | re.DOTALL)
    end = flag.end() if flag else 0
    name, value = word[:end], word[end:]
    if value.isprintable():
        return name + shlex.quote(value)
    return f"{name}$'{''.join(map(_escaped, value))}'"


def _escaped(character: str) -> str:
    if character in _ESCAPES or character.isprintable():
        return _ESCAPES.get(character, character)
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def write_file(file: File) -> None:
    """Writes the file, and creates its folder. UserError where it cannot be written."""
    path = Path(file.path)
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(file.text, encoding="utf-8")


def run_command(command: Command) -> None:
    """Runs the command, with its output on standard error. UserError where it fails."""
    code = start_process(command, stdout=sys.stderr.fileno()).wait()
    if code:
        raise UserError(f"exit code {code} of: {shell_line(command.argv)}")


def output(command: Command, not_found: str | None = None) -> str:
    """Returns what a command prints, or "" if its error contains `not_found`; else UserError."""
    process = start_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    output, errors = process.communicate()
    if process.returncode == 0:
        return output.strip()
    if not_found and not_found in errors:
        return ""
    last = (errors.strip().splitlines() or ["it printed nothing"])[-1]
    raise UserError(f"exit code {process.returncode} of: {shell_line(command.argv)}: {last}")


def output_with_retries(command: Command, not_found: str | None = None) -> str:
    """Returns `output`, and tries again for ten minutes, for when the network is gone."""
    for _ in range(_TRIES - 1):
        try:
            return output(command, not_found)
        except UserError as error:
            log(f"{error}; trying again in {_RETRY_SECONDS:.0f} s")
            time.sleep(_RETRY_SECONDS)
    return output(command, not_found)


def check_programs(steps: Iterable[Step]) -> None:
    """Raises UserError if a program that the steps run is not installed."""
    programs = {step.argv[0] for step in steps if isinstance(step, Command)}
    missing = sorted(program for program in programs if shutil.which(program) is None)
    if missing:
        raise UserError(f"there is no {' and no '.join(missing)} here (docs/launch_targets.md)")


def output_lines(process: subprocess.Popen[str]) -> Iterator[str]:
    assert process.stdout is not None
    with process.stdout:
        yield from process.stdout


def start_process(
    command: Command, stdout: int | None = None, stderr: int | None = None
) -> subprocess.Popen[str]:
    """Starts the command, without an input. UserError where the system does not start it."""
    try:
        return subprocess.Popen(
            command.argv,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            errors="replace",
        )
    except OSError as error:  # it is not there, or the arguments are too long
        raise UserError(f"{command.argv[0]} cannot be started: {error.strerror}") from error
