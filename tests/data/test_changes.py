"""Files that change while a run reads them."""

import gzip
import os

import pytest
import seqio

from switch_jax.data.sources import FileWatch
from switch_jax.data.streams import Cursor, TaskExamples
from switch_jax.errors import UserError
from switch_jax.tasks.english import read_lines
from tests.data.test_order import VOCABULARY, parse

TEXT = "".join(f"{n}\n" for n in range(2, 2002))


@pytest.fixture(params=["lines", "archive"])
def reading(request, tmp_path):
    """A file, and a stream that has read its first example."""
    if request.param == "lines":
        file = tmp_path / "numbers.txt"
        file.write_text(TEXT)
        source = seqio.TextLineDataSource({"train": str(file)})
    else:
        file = tmp_path / "numbers.txt.gz"
        file.write_bytes(gzip.compress(TEXT.encode()))
        source = seqio.FileDataSource(read_lines, {"train": str(file)})
    features = {key: seqio.Feature(VOCABULARY, add_eos=False) for key in ("inputs", "targets")}
    task = seqio.TaskRegistry.add(
        "changing", source=source, preprocessors=[parse], output_features=features
    )
    examples = TaskExamples(
        task, {"inputs": 1, "targets": 1}, split="train", num_streams=1, seed=0, shuffle=True,
        use_cached=False,
    ).read(0, Cursor())  # fmt: skip
    next(examples)
    yield file, examples
    seqio.TaskRegistry.remove("changing")


def numbers_until(examples, epoch):
    """What comes before an epoch, the first example too."""
    for example, cursor in examples:
        assert 2 <= int(example["inputs"][0]) < 2002
        if cursor.epoch == epoch:
            return


def test_a_file_that_is_cut_off_ends_the_run_with_its_name(reading):
    file, examples = reading
    size = file.stat().st_size
    os.truncate(file, size // 2)
    sizes = f"it had {size} bytes, and now has {size // 2}"
    with pytest.raises(UserError, match=f"changing: {file} was changed while it was read: {sizes}"):
        numbers_until(examples, 30)


def test_a_file_that_is_removed_ends_the_run_with_its_name(reading):
    file, examples = reading
    file.unlink()
    with pytest.raises(UserError, match=f"changing: {file} is gone, which was there when the run"):
        numbers_until(examples, 30)


def test_a_file_that_is_written_anew_is_told_once(tmp_path, capsys):
    file = tmp_path / "numbers.txt"
    file.write_text(TEXT)
    watch = FileWatch("changing")
    assert watch.size(str(file)) == len(TEXT)
    os.utime(file, (1, 1))
    assert watch.size(str(file)) == watch.size(str(file)) == len(TEXT)
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told.startswith(f"changing: {file} was written anew while it was read, with the same si")
