"""Programs of the cloud that do not exist here, as scripts on PATH that write down their calls."""

import os
import stat
from pathlib import Path

import pytest

GONE = "ERROR: (gcloud.compute.tpus) NOT_FOUND: no such resource"


def put_on_path(monkeypatch: pytest.MonkeyPatch, folder: Path, **programs: str) -> Path:
    """Makes the programs, of bash; returns the file that their calls are written to, one a line."""
    calls = folder / "calls.txt"
    calls.touch()
    tools = folder / "bin"
    tools.mkdir()
    for name, text in programs.items():
        file = tools / name
        file.write_text(f'#!/bin/bash\necho "{name} $*" >> {calls}\n{text}\n')
        file.chmod(file.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return calls


def change(folder: Path, program: str, old: str, new: str) -> None:
    """Changes the first `old` in a program that `put_on_path` has made in the folder."""
    file = folder / "bin" / program
    file.write_text(file.read_text().replace(old, new, 1))


def fails_once(arguments: str) -> str:
    """A line of a program: a call with such arguments fails while there is a file `away`."""
    call = f'[[ "$*" == {arguments} && -e away ]]'
    return f'if {call}; then rm away; echo "no route" >&2; exit 1; fi'
