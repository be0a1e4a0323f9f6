"""The page on tasks of one's own, command by command, on a little text."""

import gzip
import itertools
import json

import pytest

from tests.docs.pages import DOCS, ROOT, blocks, follow


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
            ("wordnet_wic", "accuracy"),
            ("all", "average"),
        )
    }
    assert (tmp_path / "runs/report.html").stat().st_size > 10_000
