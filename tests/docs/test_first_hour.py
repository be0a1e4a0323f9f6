"""The tutorial, command by command, as somebody types it who has nothing but the page."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from switch_jax.run_folder import RunFolder
from tests.docs.pages import DOCS, ROOT, blocks

SET_UP = "make setup\nsource .venv/bin/activate\n"


@pytest.mark.slow
def test_every_command_of_the_first_hour_runs(tmp_path):
    (tmp_path / "tasks").symlink_to(ROOT / "tasks")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # The devices are those that a run asks for, and not those of the tests.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PATH": path}
    typed = blocks((DOCS / "first_hour.md").read_text())
    assert typed[0] == SET_UP
    for block in typed[1:]:
        if file := re.match(r"# (my_\w+\.\w+)\n", block):
            (tmp_path / file[1]).write_text(block)
            continue
        command = ["bash", "-eu", "-c", block]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode == 0, f"{block}\n{done.stdout.decode()}\n{done.stderr.decode()}"
    for run in ("first", "own_text", "own_text_8"):
        assert (RunFolder(tmp_path / "runs" / run).checkpoints / "60").exists()
    assert b"prediction" in done.stdout  # the last command asks the model
    assert (tmp_path / "runs/report.html").stat().st_size > 10_000
