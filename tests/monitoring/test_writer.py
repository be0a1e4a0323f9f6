import errno
import json
import os
import sys
from pathlib import Path
from unittest import mock

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from switch_jax.monitoring import MetricWriter
from switch_jax.run_folder import RunFolder
from switch_jax.utils.errors import TransientError, UserError


def _lines(folder):
    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def _tensorboard(folder):
    """Scalars and histograms (rows of edges and count) by name: [(step, value), ...]."""
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    return {
        name: [(e.step, tf.make_ndarray(e.tensor_proto).tolist()) for e in events.Tensors(name)]
        for name in events.Tags()["tensors"]
    }


@pytest.fixture
def wandb(monkeypatch):
    """In place of the module; `init` gives always the same run."""
    module = mock.MagicMock()
    module.Error = type("Error", (Exception,), {})
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_numbers_lie_in_both_files_under_their_paths(tmp_path):
    writer = MetricWriter(RunFolder(tmp_path))
    values = {"loss": 2.5, "router": {"encoder": {"load": [[0.25, 0.75, 0.75]], "dropped": [0.5]}}}
    writer.write("train", 3, 1.23456, values)
    writer.write("eval", 3, 1.5, {"task": "mine", "accuracy": 0.5})
    writer.close()
    assert _lines(tmp_path) == [
        {"kind": "train", "step": 3, "seconds": 1.235, **values},
        {"kind": "eval", "step": 3, "seconds": 1.5, "task": "mine", "accuracy": 0.5},
    ]
    found = _tensorboard(tmp_path)
    ((step, buckets),) = found.pop("train/router/encoder/load/0")
    assert step == 3
    assert (buckets[0][0], buckets[-1][1]) == (0.25, 0.75)
    assert [count for _, _, count in buckets if count] == [1, 2]
    assert found == {
        "train/loss": [(3, 2.5)],
        "train/router/encoder/dropped/0": [(3, 0.5)],
        "eval/mine/accuracy": [(3, 0.5)],
    }


def test_numbers_that_are_not_finite_are_null(tmp_path):
    nan, inf = float("nan"), float("inf")
    writer = MetricWriter(RunFolder(tmp_path))
    router = {"load": [[0.5, inf], [-inf, 1.0]], "entropy": [inf]}
    writer.write("train", 1, 0.0, {"loss": nan, "router": router})
    writer.close()
    (record,) = _lines(tmp_path)
    assert record["loss"] is None
    assert record["router"] == {"load": [[0.5, None], [None, 1.0]], "entropy": [None]}
    assert _tensorboard(tmp_path)["train/router/entropy/0"] == [(1, inf)]


def test_the_last_record_of_a_kind_up_to_a_step(tmp_path):
    lines = [
        {"kind": "train", "step": 2, "seconds": 2.0, "start": 1},
        {"kind": "train", "step": 4, "seconds": 4.0, "start": 1},
        {"kind": "train", "step": 4, "seconds": 5.0, "start": 2},  # after a checkpoint of step 2
        {"kind": "eval", "step": 4, "seconds": 5.5, "neg_log_perplexity": -2.0},
        {"kind": "train", "step": 6, "seconds": 7.0, "start": 2},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "metrics.jsonl").write_text(text)
    writer = MetricWriter(RunFolder(tmp_path))
    assert writer.last_record("train", 5) == lines[2]
    assert writer.last_record("train", 3) == lines[0]
    assert writer.last_record("eval", 9) == lines[3]
    assert writer.last_record("train", 1) is None
    assert writer.last_record("eval", 3) is None
    writer.close()


def test_lines_that_are_no_records_are_left_out_and_said(tmp_path, capsys):
    good = {"kind": "train", "step": 1, "seconds": 2.5, "spent": {"step": 1.5}}
    (tmp_path / "metrics.jsonl").write_text(f'null\n{json.dumps(good)}\n\n{{"kind": \n')
    writer = MetricWriter(RunFolder(tmp_path))
    for _ in range(2):
        assert writer.last_record("train", 9) == good
    assert writer.find({"kind": "train"}) == good
    writer.close()
    (said,) = capsys.readouterr().err.splitlines()
    assert said == f"{tmp_path}/metrics.jsonl: 2 of 3 records left out (the first is line 1)"


def test_an_inactive_writer_reads_and_leaves_everything_as_it_is(tmp_path, wandb):
    line = '{"kind": "train", "step": 1, "seconds": 2.5}'
    (tmp_path / "metrics.jsonl").write_text(f'{line}\n{{"ki')
    writer = MetricWriter(RunFolder(tmp_path), wandb_project="mine", active=False)
    writer.write("train", 2, 3.5, {"loss": 1.0})
    writer.close()
    assert writer.last_record("train", 2) == json.loads(line)
    assert (tmp_path / "metrics.jsonl").read_text() == f'{line}\n{{"ki'
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
    wandb.init.assert_not_called()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is full")
@pytest.mark.parametrize("full", ["metrics.jsonl", "tensorboard"])
def test_a_full_disk_is_one_clear_line(tmp_path, full):
    writer = MetricWriter(RunFolder(tmp_path))
    if full == "metrics.jsonl":
        (tmp_path / full).symlink_to("/dev/full")
    else:
        (events,) = (tmp_path / full).glob("events.*")
        _redirect_open_file(events, "/dev/full")
    with pytest.raises(UserError, match=f"{full} cannot be written: No space left on device$"):
        writer.write("train", 1, 0.0, {"loss": 1.0})
    writer.close()


def _redirect_open_file(path, target):
    """Lets the descriptor that this process has open for `path` write to `target` instead."""
    for link in Path("/proc/self/fd").iterdir():
        if link.exists() and link.resolve() == path.resolve():
            with open(target, "wb") as file:
                os.dup2(file.fileno(), int(link.name))


def test_wandb_gets_every_number_with_its_step(tmp_path, wandb):
    folder = tmp_path / "large"
    folder.mkdir()
    writer = MetricWriter(RunFolder(folder), wandb_project="mine", config_text="A = 1\n")
    writer.write("train", 2, 1.0, {"loss": 2.5, "router": {"dropped": [0.5], "load": [[1.0]]}})
    writer.write("eval", 2, 1.0, {"task": "all", "accuracy": 0.5})
    writer.close()
    run_id = (folder / "wandb_run_id").read_text()
    wandb.init.assert_called_once_with(
        project="mine", name="large", id=run_id, resume="allow", dir=str(folder),
        config={"gin": "A = 1\n"},
    )  # fmt: skip
    run = wandb.init.return_value
    assert run_id and run.log.mock_calls == [
        mock.call({"train/loss": 2.5, "train/router/dropped/0": 0.5, "step": 2}),
        mock.call({"eval/all/accuracy": 0.5, "step": 2}),
    ]
    run.define_metric.assert_called_once_with("*", step_metric="step")
    run.finish.assert_called_once_with()


def test_a_run_that_goes_on_stays_one_run_of_wandb(storage, wandb):
    for folder in (storage / "a", storage / "a", storage / "b"):
        folder.mkdir(exist_ok=True)
        MetricWriter(RunFolder(folder), wandb_project="mine").close()
    first, resumed, other = (call.kwargs["id"] for call in wandb.init.call_args_list)
    assert first == resumed == (storage / "a" / "wandb_run_id").read_text() != other


def test_wandb_that_does_not_start(tmp_path, wandb):
    wandb.init.side_effect = wandb.Error("No API key configured.")
    with pytest.raises(UserError, match="start: No API key configured. With .* WANDB_MODE=offline"):
        MetricWriter(RunFolder(tmp_path), wandb_project="mine")


def test_a_fault_of_the_storage_may_pass(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ESTALE, "words")

    def refuse(*_):
        raise OSError(errno.EACCES, "no right")

    def fail_in_tensorflow():
        raise tf.errors.UnavailableError(None, None, "file; words")

    writer = MetricWriter(RunFolder(tmp_path))
    with monkeypatch.context() as broken:
        broken.setattr("switch_jax.monitoring.writer.read_appended", refuse)
        with pytest.raises(TransientError, match="metrics.jsonl cannot be read: no right; this ma"):
            writer.last_record("train", 1)
    with monkeypatch.context() as broken:
        broken.setattr(writer._file, "append", fail)
        with pytest.raises(
            TransientError, match="metrics.jsonl cannot be written: words; this may"
        ):
            writer.write("train", 1, 1.0, {"loss": 2.0})
    monkeypatch.setattr(writer._tensorboard, "flush", fail_in_tensorflow)
    with pytest.raises(TransientError, match="tensorboard cannot be written: words; this may pass"):
        writer.write("train", 1, 1.0, {"loss": 2.0})
