"""The pages of the first hour and of one's own text, command by command.

As somebody types them who has nothing but the pages.
"""

import pytest

from switch_jax.run_folder import RunFolder
from tests.docs.pages import DOCS, blocks, follow


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "steps"),
    [
        ("first_hour", {"first": 60, "four": 60, "sixteen": 60}),
        ("own_tasks", {"my_text": 60, "my_words": 20}),
    ],
)
def test_every_command_runs(page, steps, tmp_path):
    printed = follow(blocks((DOCS / f"{page}.md").read_text()), tmp_path)
    for run, step in steps.items():
        assert (RunFolder(tmp_path / "runs" / run).checkpoints / str(step)).exists()
    if page == "first_hour":
        assert "prediction" in printed  # the last command asks the model
        assert (tmp_path / "runs/report.html").stat().st_size > 10_000
