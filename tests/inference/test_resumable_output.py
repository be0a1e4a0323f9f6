"""Output files that are written in parts: order, resuming, and several jobs."""

import json

import pytest

from switch_jax.inference.resumable_output import ResumableOutput
from switch_jax.utils.errors import UserError


def doubled(calls):
    """A computation that records its calls."""

    def compute(records, first):
        calls.append((first, list(records)))
        return ({"index": first + i, "twice": 2 * r} for i, r in enumerate(records))

    return compute


EXPECTED = [{"index": n, "twice": 2 * n} for n in range(10)]


def results(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_results_are_in_the_order_of_the_records(tmp_path):
    calls = []
    assert ResumableOutput(tmp_path / "out.jsonl", 4, {}).fill(range(10), doubled(calls)) == 0
    assert results(tmp_path / "out.jsonl") == EXPECTED
    assert calls == [(0, [0, 1, 2, 3]), (4, [4, 5, 6, 7]), (8, [8, 9])]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_after_a_stop_only_missing_parts_are_computed(tmp_path):
    def stops(records, first):
        for i, result in enumerate(doubled([])(records, first)):
            if first + i == 6:
                raise KeyboardInterrupt
            yield result

    with pytest.raises(KeyboardInterrupt):
        ResumableOutput(tmp_path / "out.jsonl", 4, {}).fill(range(10), stops)
    assert not (tmp_path / "out.jsonl").exists()
    calls = []
    assert ResumableOutput(tmp_path / "out.jsonl", 4, {}).fill(range(10), doubled(calls)) == 0
    assert [first for first, _ in calls] == [4, 8]
    assert results(tmp_path / "out.jsonl") == EXPECTED


def test_several_jobs_share_the_parts(tmp_path):
    path, of_first, of_second = tmp_path / "out.jsonl", [], []
    assert ResumableOutput(path, 4, {}).fill(range(10), doubled(of_first), 0, 2) == 4
    assert not path.exists()
    assert ResumableOutput(path, 4, {}).fill(range(10), doubled(of_second), 1, 2) == 0
    assert [first for first, _ in of_first] == [0, 8]
    assert [first for first, _ in of_second] == [4]
    assert results(path) == EXPECTED


def test_no_records_make_an_empty_file(tmp_path):
    assert ResumableOutput(tmp_path / "out.jsonl", 4, {}).fill([], doubled([])) == 0
    assert (tmp_path / "out.jsonl").read_text() == ""


def test_parts_of_other_results_are_not_reused(tmp_path):
    ResumableOutput(tmp_path / "out.jsonl", 4, {"step": 1}).fill(range(10), doubled([]), 0, 2)
    message = r"out.jsonl.parts holds parts of other results \(step 1 -> 2\): write the"
    with pytest.raises(UserError, match=message):
        ResumableOutput(tmp_path / "out.jsonl", 4, {"step": 2})
    with pytest.raises(UserError, match=r"\(part_size 4 -> 8\)"):
        ResumableOutput(tmp_path / "out.jsonl", 8, {"step": 1})


def test_parts_that_lack_results_are_not_joined(tmp_path):
    path = tmp_path / "out.jsonl"
    ResumableOutput(path, 4, {}).fill(range(10), doubled([]), 0, 2)
    (tmp_path / "out.jsonl.parts" / "000000.jsonl").write_text('{"index": 0}\n')
    with pytest.raises(UserError, match="out.jsonl.parts has 7 results for 10 records: .* remove"):
        ResumableOutput(path, 4, {}).fill(range(10), doubled([]))
    assert not path.exists()


def test_an_existing_file_is_kept(tmp_path):
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(UserError, match="out.jsonl already exists"):
        ResumableOutput(tmp_path / "out.jsonl", 4, {})


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="out.jsonl.parts cannot be written: Not a directory"):
        ResumableOutput(tmp_path / "file" / "out.jsonl", 4, {})
