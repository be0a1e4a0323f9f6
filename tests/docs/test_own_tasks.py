"""The page on tasks of one's own, command by command, on a little text."""

import gzip
import itertools

import pytest

from tests.docs.pages import DOCS, ROOT, blocks, follow


@pytest.mark.slow
def test_every_command_of_a_task_of_your_own_runs(tmp_path):
    with gzip.open(ROOT / "tasks/data/bible.train.txt.gz", "rt") as text:
        for file, count in (("my_train.txt", 2000), ("my_valid.txt", 200)):
            (tmp_path / file).write_text("".join(itertools.islice(text, count)))
    follow(blocks((DOCS / "own_tasks.md").read_text()), tmp_path)
    for run, step in (("my_task", "60"), ("my_words", "20")):
        assert (tmp_path / "runs" / run / "checkpoints" / step).exists()
