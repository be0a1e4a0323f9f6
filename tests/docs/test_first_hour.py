"""The tutorial, command by command, as somebody types it who has nothing but the page."""

import pytest

from switch_jax.run_folder import RunFolder
from tests.docs.pages import DOCS, blocks, follow

SET_UP = "make setup\nsource .venv/bin/activate\n"


@pytest.mark.slow
def test_every_command_of_the_first_hour_runs(tmp_path):
    typed = blocks((DOCS / "first_hour.md").read_text())
    assert typed[0] == SET_UP
    printed = follow(typed[1:], tmp_path)
    for run in ("first", "own_text", "own_text_8"):
        assert (RunFolder(tmp_path / "runs" / run).checkpoints / "60").exists()
    assert "prediction" in printed  # the last command asks the model
    assert (tmp_path / "runs/report.html").stat().st_size > 10_000
