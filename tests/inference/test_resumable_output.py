"""Output files that are written in parts: order, resuming, and several jobs."""

import json

import pytest

from switch_jax.inference.resumable_output import ResumableOutput
from switch_jax.utils.errors import UserError

EXPECTED = [{"index": n, "twice": 2 * n} for n in range(10)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out.jsonl"


def fill(path, *shard, records=range(10), stop_at=None, part_size=4, step=1, beams=1):
    """Doubles records; returns how many results are missing then, and the parts' starts.

    The step is what changes by itself, and the number of beams an option.
    """
    starts = []

    def compute(part, first):
        starts.append(first)
        return _results(part, first, stop_at)

    output = ResumableOutput(path, part_size, {"beams": beams}, {"step": step}, *shard)
    return output.fill(records, compute), starts


def _results(part, first, stop_at=None):
    for index, record in enumerate(part, start=first):
        if index == stop_at:
            raise KeyboardInterrupt
        yield {"index": index, "twice": 2 * record}


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


@pytest.mark.parametrize(
    ("shard", "change", "message"),
    [
        ((), {"beams": 4}, r"out.jsonl.parts holds parts of other results \(beams 1 -> 4\): take "),
        ((), {"beams": 4, "step": 2}, r"\(beams 1 -> 4, step 1 -> 2\)"),
        ((), {"part_size": 8}, r"\(part_size 4 -> 8\)"),
        ((0, 2), {"step": 2}, r"\(step 1 -> 2\)"),  # another job may be at work
    ],
)
def test_parts_that_could_be_gone_on_with_are_kept(path, shard, change, message):
    with pytest.raises(KeyboardInterrupt):
        fill(path, *shard, stop_at=8)
    with pytest.raises(UserError, match=message):
        fill(path, *shard, **change)
    assert 0 not in fill(path)[1]


def test_another_input_or_checkpoint_begins_anew(path, capsys):
    with pytest.raises(KeyboardInterrupt):
        fill(path, records=[9] * 10, stop_at=6)
    with pytest.raises(KeyboardInterrupt):
        fill(path, step=2, stop_at=9)
    assert capsys.readouterr().err == (
        f"{path}.parts has parts of other results (step 1 -> 2): the output begins anew\n"
    )
    assert fill(path, step=2) == (0, [8])
    assert results(path) == EXPECTED
    assert list(path.parent.iterdir()) == [path]
    assert capsys.readouterr().err == ""


def test_the_parts_of_a_job_of_another_checkpoint_are_not_joined(path):
    """It is at work in the same folder, since it started before the run went on."""
    other = ResumableOutput(path, 4, {"beams": 1}, {"step": 1})
    ours = ResumableOutput(path, 4, {"beams": 1}, {"step": 2})

    def compute_late(part, first):
        if first == 4:
            with pytest.raises(KeyboardInterrupt):
                other.fill([9] * 10, lambda part, first: _results(part, first, stop_at=6))
        return _results(part, first)

    assert ours.fill(range(10), compute_late) == 0
    assert results(path) == EXPECTED


@pytest.mark.parametrize(
    "damage", [b"", b'{"be', b"\xff", b"[1]", b"7", b"[" * 100_000], ids=lambda d: repr(d[:4])
)
def test_parts_whose_description_is_damaged_are_known_by_their_names(path, damage):
    with pytest.raises(KeyboardInterrupt):
        fill(path, stop_at=6)
    (path.with_name("out.jsonl.parts") / "description.json").write_bytes(damage)
    assert fill(path) == (0, [4, 8])
    assert results(path) == EXPECTED


def test_parts_that_lack_results_are_not_joined(path):
    fill(path, 0, 2)
    (part,) = path.with_name("out.jsonl.parts").glob("000000-*.jsonl")
    part.write_text('{"index": 0}\n')
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
