"""Pages, command by command, as somebody types them who has nothing but the page."""

import gzip
import itertools
import json

import pytest

from switch_jax.run_folder import RunFolder
from tests.docs.pages import DOCS, ROOT, blocks, follow

SET_UP = "make setup\nsource .venv/bin/activate\n"


@pytest.mark.slow
def test_every_command_of_the_first_hour_runs(tmp_path):
    typed = blocks((DOCS / "first_hour.md").read_text())
    assert typed[0] == SET_UP
    printed = follow(typed[1:], tmp_path)
    for run in ("first", "own_text", "own_text_8"):
        assert (RunFolder(tmp_path / "runs" / run).checkpoints / "60").exists()
    assert b"prediction" in printed  # the last command asks the model
    assert (tmp_path / "runs/report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_every_command_of_a_task_of_your_own_runs(tmp_path):
    with gzip.open(ROOT / "tasks/data/bible.train.txt.gz", "rt") as text:
        for file, count in (("my_train.txt", 2000), ("my_valid.txt", 200)):
            (tmp_path / file).write_text("".join(itertools.islice(text, count)))
    follow(blocks((DOCS / "own_tasks.md").read_text()), tmp_path)
    lines = (tmp_path / "runs/my_tuning/metrics.jsonl").read_text().splitlines()
    generated = {
        (record["step"], record["task"]): set(record["generated"])
        for record in map(json.loads, lines)
        if "generated" in record
    }
    assert generated == {
        (step, task): {metric}
        for step in (0, 20, 40)
        for task, metric in (
            ("my_questions", "accuracy"),
            ("factbook_boolq", "accuracy"),
            ("all", "average"),
        )
    }
    assert (tmp_path / "runs/report.html").stat().st_size > 10_000
