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
