"""Files that change while a run reads them."""

import gzip
import os
import re

import pytest
import seqio
from tqdm import tqdm

from switch_jax.data.file_watch import FileWatch
from switch_jax.data.position import Cursor
from switch_jax.errors import UserError
from switch_jax.tasks.english import read_lines
from tests.data.number_tasks import FEATURES, parse, task_examples

TEXT = "".join(f"{n}\n" for n in range(2, 2002))


@pytest.fixture(params=["lines", "object", "archive"])
def reading(request, tmp_path):
    """A file, and a stream that has read its first example."""
    if request.param != "archive":
        in_bucket = request.param == "object"
        file = (request.getfixturevalue("bucket_path") if in_bucket else tmp_path) / "numbers.txt"
        file.write_text(TEXT)
        source = seqio.TextLineDataSource({"train": str(file)})
    else:
        file = tmp_path / "numbers.txt.gz"
        file.write_bytes(gzip.compress(TEXT.encode()))
        source = seqio.FileDataSource(read_lines, {"train": str(file)})
    task = seqio.TaskRegistry.add(
        "changing", source=source, preprocessors=[parse], output_features=FEATURES
    )
    examples = task_examples(task).read(0, Cursor())
    next(examples)
    yield file, examples
    seqio.TaskRegistry.remove("changing")


def read_until(examples, epoch):
    """Reads until the beginning of an epoch or an error; each example must be one of the file."""
    for example, cursor in examples:
        assert 2 <= int(example["inputs"][0]) < 2002
        if cursor.epoch == epoch:
            return


def test_a_file_that_is_cut_off_ends_the_run_with_its_name(reading):
    file, examples = reading
    content = file.read_bytes()
    size = len(content)
    file.write_bytes(content[: size // 2])
    sizes = f"it had {size} bytes, and now has {size // 2}"
    with pytest.raises(UserError, match=f"changing: {file} has changed during the run: {sizes}"):
        read_until(examples, 30)


def test_a_file_that_is_removed_ends_the_run_with_its_name(reading):
    file, examples = reading
    file.unlink()
    with pytest.raises(UserError, match=f"changing: {file} no longer exists, but did when the run"):
        read_until(examples, 30)


@pytest.mark.parametrize(("how", "args"), [("read", (2, 7)), ("look", ())])
def test_a_file_that_is_rewritten_is_reported_once(storage, capsys, how, args):
    file = storage / "numbers.txt"
    file.write_text(TEXT)
    watch = FileWatch("changing")
    assert watch.sizes([str(file)]) == [len(TEXT)]
    getattr(watch, how)(str(file), *args)
    file.write_text(TEXT)
    for _ in range(2):
        getattr(watch, how)(str(file), *args)
    reported = capsys.readouterr().err
    assert reported.count("\n") == 1
    assert reported.startswith(f"changing: {file} was rewritten during the run, with the same size")


def test_a_progress_bar_is_wiped_away_for_the_report(tmp_path, capsys):
    file = tmp_path / "numbers.txt"
    file.write_text(TEXT)
    watch = FileWatch("changing")
    watch.look(str(file))
    os.utime(file, (1, 1))
    with tqdm(total=2):
        watch.look(str(file))
    bar, reported, bar_again = re.split("(changing: .*\n)", capsys.readouterr().err)
    assert re.search(r"0/2 .*\r +\r$", bar) and "0/2" in bar_again
