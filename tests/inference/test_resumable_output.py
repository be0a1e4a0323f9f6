"""Output files that are written in parts: order, resuming, and several jobs."""

import json

import pytest

from switch_jax.inference.resumable_output import ResumableOutput
from switch_jax.utils.errors import UserError

EXPECTED = [{"index": n, "twice": 2 * n} for n in range(10)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


def fill(path, *shard, records=range(10), stop_at=None, **description):
    """Doubles records, four in a part; how many results are missing then, and the parts' starts."""
    starts = []

    def compute(part, first):
        starts.append(first)
        for index, record in enumerate(part, start=first):
            if index == stop_at:
                raise KeyboardInterrupt
            yield {"index": index, "twice": 2 * record}

    missing = ResumableOutput(path, 4, description).fill(records, compute, *shard)
    return missing, starts


def results(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_results_are_in_the_order_of_the_records(path):
    assert fill(path) == (0, [0, 4, 8])
    assert results(path) == EXPECTED
    assert list(path.parent.iterdir()) == [path]


def test_after_a_stop_only_missing_parts_are_computed(path):
    with pytest.raises(KeyboardInterrupt):
        fill(path, stop_at=6)
    assert not path.exists()
    assert fill(path) == (0, [4, 8])
    assert results(path) == EXPECTED


def test_several_jobs_share_the_parts(path):
    assert fill(path, 0, 2) == (4, [0, 8])
    assert not path.exists()
    assert fill(path, 1, 2) == (0, [4])
    assert results(path) == EXPECTED


def test_no_records_make_an_empty_file(path):
    assert fill(path, records=[]) == (0, [])
    assert path.read_text() == ""


def test_parts_of_other_results_are_not_reused(path):
    fill(path, 0, 2, step=1)
    message = r"out.jsonl.parts holds parts of other results \(step 1 -> 2\): take the"
    with pytest.raises(UserError, match=message):
        fill(path, step=2)
    with pytest.raises(UserError, match=r"\(part_size 4 -> 8\)"):
        ResumableOutput(path, 8, {"step": 1})


def test_parts_that_lack_results_are_not_joined(path):
    fill(path, 0, 2)
    (path.with_name("out.jsonl.parts") / "000000.jsonl").write_text('{"index": 0}\n')
    with pytest.raises(UserError, match="out.jsonl.parts has 7 results for 10 records: .* remove"):
        fill(path)
    assert not path.exists()


def test_an_existing_file_is_kept(path):
    path.write_text("mine")
    with pytest.raises(UserError, match="out.jsonl already exists"):
        fill(path)


def test_a_path_that_cannot_be_written(path):
    path.touch()
    with pytest.raises(UserError, match="in.jsonl.parts cannot be written: Not a directory"):
        fill(path / "in.jsonl")
