import dataclasses
import json
import os
import signal
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.checkpointing import Checkpoints, RunLock, chosen_step
from switch_jax.config import (
    Config,
    DataConfig,
    GuardConfig,
    MeshConfig,
    OptimizerConfig,
    RunConfig,
)
from switch_jax.data.checks import open_tasks
from switch_jax.data.prefetch import Prefetch
from switch_jax.data.train_batches import TrainBatches
from switch_jax.errors import UserError
from switch_jax.evaluation.teacher_forced import Evaluation
from switch_jax.metrics import MetricWriter
from switch_jax.reports.run_status import read_status
from switch_jax.run_folder import RunFolder
from switch_jax.train_step.step import batch_hash
from switch_jax.trainer import loop
from switch_jax.trainer import train as train_module
from switch_jax.trainer.signals import Stopped
from switch_jax.trainer.train import train
from tests.run_folder.documented import problems, table_of, tables
from tests.trainer import tiny_task  # noqa: F401  registers it
from tests.trainer.helpers import tiny_model

DATA = DataConfig("tiny_copy", {"inputs": 32, "targets": 16}, data_streams=2)
MODEL = tiny_model(num_embeddings=1152, sparse_step=1, num_encoder_layers=1, num_decoder_layers=1,
                   group_size=64, dropout_rate=0.1, scan_layers=False)  # fmt: skip


def _train(folder, steps, mesh=(1, 2, 1), model=MODEL, data=DATA, guard=None, **changes):
    periods = {"log_period": 2, "eval_period": 3, "eval_steps": 1, "checkpoint_period": 3}
    guard = guard or GuardConfig()
    run = RunConfig(str(folder), train_steps=steps, batch_size=8, **{**periods, **changes})
    optimizer = OptimizerConfig(warmup_steps=100)
    text = f"# config\nSPIKE_WINDOW = {guard.spike_window}\n"
    return train(Config(run, model, data, MeshConfig(*mesh), optimizer, guard=guard), text)


def _records(folder, kind):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [r for r in map(json.loads, lines) if r["kind"] == kind]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 6 steps that was never stopped, and its final state."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, _train(folder, 6)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(whole, tmp_path):
    _train(tmp_path, 3)
    resumed = _train(tmp_path, 6)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    evals = _records(tmp_path, "eval")
    assert [r["step"] for r in evals] == [0, 3, 6]
    assert evals[-1]["neg_log_perplexity"] == _records(whole[0], "eval")[-1]["neg_log_perplexity"]


def test_another_mesh_goes_on_with_the_same_losses(whole, tmp_path):
    _train(tmp_path, 3)
    state = _train(tmp_path, 6, mesh=(2, 1, 2))
    for a, b in zip(jax.tree.leaves(state.parameters), jax.tree.leaves(whole[1].parameters),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    ours, theirs = (_records(f, "train")[-1]["loss"] for f in (tmp_path, whole[0]))
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)


def test_what_a_run_leaves_behind(whole):
    folder, state = whole
    assert int(state.step) == 6
    assert (folder / "config.gin").read_text().startswith("# config\n")
    assert sorted(int(p.name) for p in (folder / "checkpoints").iterdir()) == [3, 6]
    assert list((folder / "tensorboard").glob("events.*"))
    description = json.loads((folder / "run.json").read_text())
    assert description["num_experts"] == 4
    assert description["mesh"] == {"data": 1, "expert": 2, "model": 1}
    records = _records(folder, "train")
    # Every 2 steps, and before each checkpoint (3, 6): none is ahead of the metrics.
    assert [r["step"] for r in records] == [2, 3, 4, 6]
    router = records[-1]["router"]["encoder"]
    assert (router["layers"], router["sublayers"]) == ([0], ["feed_forward"])
    np.testing.assert_allclose(np.sum(router["load"], 1), 1.0, rtol=1e-5)
    assert 0 <= router["dropped"][0] < 1 and 0 < router["entropy"][0] <= np.log(4)
    assert records[-1]["neg_log_perplexity"] == -records[-1]["cross_entropy"]
    assert 0 < records[0]["seconds"] < records[-1]["seconds"]


def test_what_a_run_writes_is_as_documented(whole):
    folder, _ = whole
    records = [*_records(folder, "train"), *_records(folder, "eval")]
    assert [p for record in records for p in problems(record, table_of(record["kind"]))] == []
    written = {field for record in records for field in record}
    documented = {field for kind in ("train", "eval") for field in table_of(kind)}
    # The peak of a CPU is not known, there is no teacher nor bucket, and tests of infer_eval have
    # the last two.
    assert {field for field in documented if "." not in field} - written == {
        "model_flops_utilisation",
        "repeated_requests",
        "soft_cross_entropy",
        "generated",
        "majority_baseline",
    }
    for file, of_copies in (("run.json", {"step_ms"}), ("status.json", set())):
        content = json.loads((folder / file).read_text())
        assert problems(content, tables()[file]) == []
        assert {field for field in tables()[file] if "." not in field} - of_copies == set(content)


def test_what_the_status_of_a_run_says(whole):
    status = read_status(whole[0])
    assert (status.state, status.step, status.train_steps, status.checkpoint) == (
        "finished", 6, 6, 6
    )  # fmt: skip
    last = _records(whole[0], "train")[-1]
    assert (status.loss, status.spent, status.experts) == (last["loss"], last["spent"], 2 * 4)
    assert status.held_out == _records(whole[0], "eval")[-1]["neg_log_perplexity"]
    assert 0 <= status.checkpoint_age < 3600


def test_a_run_says_first_what_trains(tmp_path, capsys):
    _train(tmp_path, 1)
    first = capsys.readouterr().out.splitlines()[1]  # after that of memory
    count = json.loads((tmp_path / "run.json").read_text())["parameters"]
    assert first == (
        f"Switch Transformer, 4 experts, {count:,} parameters; tiny_copy; "
        "mesh data x expert x model = 1 x 2 x 1 of cpu"
    )


def test_a_finished_run_stays_as_it_is(whole, capsys, monkeypatch):
    folder, state = whole
    again = _train(folder, 6)
    assert "step 6 of 6: nothing to do" in capsys.readouterr().out
    np.testing.assert_array_equal(again.step, state.step)
    monkeypatch.setattr(train_module, "is_first", lambda: False)
    _train(folder, 6)
    assert "nothing to do" not in capsys.readouterr().out


def test_a_checkpoint_of_another_model_is_refused_and_kept(whole):
    folder, _ = whole
    with pytest.raises(UserError, match=r"step 6 in .*another model.*wi_0.*32\).*48\)"):
        _train(folder, 9, model=tiny_model(**{**_fields(MODEL), "mlp_dim": 48}))
    assert sorted(int(p.name) for p in (folder / "checkpoints").iterdir()) == [3, 6]
    assert json.loads((folder / "run.json").read_text())["train_steps"] == 6


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"1100 ids.*64 rows; set NUM_EMBEDDINGS to 1100 or more$"):
        _train(tmp_path, 1, model=tiny_model())
    message = "set NUM_EMBEDDINGS to 1104 or more, a multiple of MESH_MODEL = 8"
    with pytest.raises(UserError, match=message):
        _train(tmp_path, 1, mesh=(1, 1, 8), model=tiny_model())


def test_a_half_written_line_spoils_no_other(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "seconds": 2.5}\n{"ki')
    writer = MetricWriter(RunFolder(tmp_path))
    writer.write("eval", 2, 3.5, {"task": "mine", "accuracy": 0.5})
    writer.close()
    last = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last) == {
        "kind": "eval", "step": 2, "seconds": 3.5, "task": "mine", "accuracy": 0.5
    }  # fmt: skip
    assert writer.last_record("train", 1) == {"kind": "train", "step": 1, "seconds": 2.5}


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"MODEL_DIR '.*file/run' cannot be written: .*/file is"):
        _train(tmp_path / "file" / "run", 1)


def test_only_the_newest_checkpoints_stay(tmp_path):
    _train(tmp_path, 3, checkpoint_period=1, keep_checkpoints=2)
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 3]


class _EarlierGuard(NamedTuple):
    history: Any
    good: Any
    skipped: Any
    in_a_row: Any


def test_a_checkpoint_whose_guard_has_the_fields_of_earlier_code_goes_on(
    whole, tmp_path, monkeypatch
):
    save = Checkpoints.save

    def save_earlier(self, step, state, *rest):
        guard = state.guard
        earlier = _EarlierGuard(jnp.exp(guard.recent), guard.good, guard.good * 0, guard.in_a_row)
        save(self, step, state._replace(guard=earlier), *rest)

    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "save", save_earlier)
        _train(tmp_path, 3)
    resumed = _train(tmp_path, 6)
    for a, b in zip(jax.tree.leaves(resumed[:3]), jax.tree.leaves(whole[1][:3]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(resumed.guard.good) == 6
    np.testing.assert_array_equal(resumed.guard.recent[:, -3:], whole[1].guard.recent[:, -3:])
    assert np.isinf(resumed.guard.recent[:, :-3]).all()


@pytest.mark.slow
def test_a_run_goes_on_with_another_window_of_the_guard(code_as_by_default, tmp_path, capsys):
    whole = _train(tmp_path / "whole", 6)
    _train(tmp_path / "run", 3)
    resumed = _train(tmp_path / "run", 6, guard=GuardConfig(spike_window=16))
    for a, b in zip(jax.tree.leaves(resumed[:3]), jax.tree.leaves(whole[:3]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(resumed.guard.good) == 6 and resumed.guard.recent.shape == (2, 16)
    earlier = GuardConfig().spike_window
    changed = f"this start changes the run's config: SPIKE_WINDOW {earlier} -> 16\n"
    assert changed in capsys.readouterr().out


@pytest.fixture
def poison(monkeypatch):
    """Spoils some global batches, by number from 1: their loss is NaN, or as the weights say."""

    def poison(numbers, weights=np.nan):
        class Poisoned(TrainBatches):
            def __next__(self):
                batch, position = super().__next__()
                if position.batches in numbers:
                    batch["decoder_loss_weights"][:] = weights
                return batch, position

        monkeypatch.setattr(train_module, "TrainBatches", Poisoned)

    return poison


def _hashes(folder):
    """Of the batches, in the order in which steps took them."""
    return [h for r in _records(folder, "train") for h in r["batch_hashes"].split()]


def test_data_that_end_leave_a_checkpoint_of_the_last_step(whole, tmp_path, monkeypatch, capsys):
    class Ending(TrainBatches):
        def __next__(self):
            batch, position = super().__next__()
            if position.batches == 6:
                raise UserError("the file is gone")
            return batch, position

    with monkeypatch.context() as patched:
        patched.setattr(train_module, "TrainBatches", Ending)
        with pytest.raises(UserError, match="the file is gone"):
            _train(tmp_path, 9)
    assert "the state of step 5 is saved" in capsys.readouterr().out
    _train(tmp_path, 6)
    assert "continuing from the checkpoint of step 5" in capsys.readouterr().out
    assert _hashes(tmp_path) == _hashes(whole[0])


def test_a_bad_batch_is_skipped_counted_and_written_out(whole, tmp_path, poison, capsys):
    poison({4})
    state = _train(tmp_path, 6)
    assert int(state.guard.good) == 5 and int(state.guard.in_a_row) == 0
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(state.parameters))
    (skipped,) = _records(tmp_path, "skipped")
    assert problems(skipped, table_of("skipped")) == []
    assert (skipped["step"], skipped["batch"], skipped["loss"]) == (4, 4, None)
    assert [r["skipped_steps"] for r in _records(tmp_path, "train")] == [0, 0, 1, 0]
    assert _hashes(tmp_path) == _hashes(whole[0])
    written = np.load(tmp_path / "bad_batches" / "batch_4_process_0.npz")
    assert written["rows"].tolist() == list(range(8))
    assert written["encoder_input_tokens"].shape == (8, 32)
    assert np.isnan(written["decoder_loss_weights"]).all()
    assert "step 4 is bad and was skipped: loss nan is not finite, grad" in capsys.readouterr().out


def test_a_spike_is_skipped_and_told_with_its_limit(tmp_path, poison, capsys):
    weights = np.zeros((8, 16), np.float32)
    weights[:, 0], weights[:, 1] = 1000, -1000  # sums to 0: divided by 1, of huge gradients
    poison({6}, weights)
    state = _train(tmp_path, 8, guard=GuardConfig(spike_window=4), checkpoint_period=7)
    assert int(state.guard.good) == 7
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [7, 8]
    (skipped,) = _records(tmp_path, "skipped")
    norm, limit = skipped["gradient_norm"], skipped["gradient_norm_limit"]
    assert norm > 100 * limit and 0 < skipped["loss_limit"] < 20
    told = f"gradient norm {norm:.6g} is above its limit {limit:.6g}; batch 6 is in"
    assert told in capsys.readouterr().out.replace("\n", " ")


def test_many_bad_batches_send_the_run_back_and_on_with_new_data(whole, tmp_path, poison, capsys):
    poison({5, 6})
    state = _train(tmp_path, 6, guard=GuardConfig(max_bad_steps=2, max_rollbacks=2))
    assert "2 bad steps in a row, up to step 6: back to step 3, and on" in capsys.readouterr().out
    assert int(state.step) == int(state.guard.good) == 6  # as of the checkpoint
    assert all(np.isfinite(p).all() for p in jax.tree.leaves(state.parameters))
    (rollback,) = _records(tmp_path, "rollback")
    assert problems(rollback, table_of("rollback")) == []
    assert (rollback["step"], rollback["bad_steps"], rollback["back_to"]) == (6, 2, 3)
    assert read_status(tmp_path).rollbacks == 1
    # Batches 1 to 3, the good 4 and the bad 5 and 6; then steps 4 to 6 take 7 to 9.
    assert [r["batches"] for r in _records(tmp_path, "train")][-1] == 9
    hashes = _hashes(tmp_path)
    assert len(set(hashes)) == len(hashes)
    expected, position = TrainBatches(open_tasks(DATA), 8), None
    for _ in range(9):
        batch, position = next(expected)
    assert int(batch_hash(batch)) == int(hashes[-1], 16)


def test_bad_batches_without_end_stop_the_run_and_a_restart_does_not_see_them_again(
    tmp_path, poison
):
    poison(set(range(5, 1000)))
    guard = GuardConfig(max_bad_steps=2, max_rollbacks=2)
    with pytest.raises(
        UserError, match=r"3 bad .*after 2 returns.*step 6 is bad.*loss nan.*bad_batches"
    ):
        _train(tmp_path, 20, guard=guard)
    # Steps 5 and 6, and twice 4 to 6: two are too many, which shows when the third is under way.
    assert [r["batch"] for r in _records(tmp_path, "skipped")] == [5, 6, 7, 8, 9, 10, 11, 12]
    poison(set())
    _train(tmp_path, 6, guard=guard)
    # The second return gave the checkpoint of step 3 the data from batch 10 on.
    assert [r["batches"] for r in _records(tmp_path, "train")][-1] == 12


def test_bad_steps_cost_no_checkpoint_to_go_back_to(tmp_path, poison, capsys):
    poison({6, 7, 8, 9})
    guard = GuardConfig(max_bad_steps=3)
    state = _train(tmp_path, 9, guard=guard, keep_checkpoints=1)
    assert "4 bad steps in a row, up to step 9: back to step 3" in capsys.readouterr().out
    assert int(state.step) == 9 and int(state.guard.good) == 9
    records = [r for r in _records(tmp_path, "train") if r["step"] in (4, 9)]
    # Step 9, which was given up, has a record of its own, and no part in that of the new step 4.
    assert [r["step"] for r in records] == [4, 9, 4, 9]
    assert [r["skipped_steps"] for r in records] == [0, 1, 0, 0]


def test_a_return_to_the_beginning_is_not_forgotten(whole, tmp_path, poison, capsys):
    poison(set(range(1, 10)))
    guard = GuardConfig(max_bad_steps=2, max_rollbacks=2)
    with pytest.raises(UserError, match="after 2 returns"):
        _train(tmp_path, 6, guard=guard)
    status = read_status(tmp_path)
    assert (status.state, "after 2 returns" in status.message) == ("failed", True)
    assert "back to step 0, and on with new data" in capsys.readouterr().out
    poison(set())
    _train(tmp_path, 3, guard=guard)
    assert f"continuing from the checkpoint of step 0 in {tmp_path}" in capsys.readouterr().out
    assert not set(_hashes(tmp_path)[-3:]) & set(_hashes(whole[0])[:3])


def test_the_best_checkpoint_stays_and_the_run_stops_early(tmp_path, monkeypatch, capsys):
    scores = iter([-9.0, -3.0, -5.0, -4.0, -6.0])

    def evaluate(self, state):
        return {"mine": {"neg_log_perplexity": next(scores), "accuracy": 0.0}}

    monkeypatch.setattr(Evaluation, "__call__", evaluate)
    changes = {"eval_period": 1, "checkpoint_period": 1, "keep_checkpoints": 1}
    _train(tmp_path, 50, early_stopping_evals=3, **changes)
    assert "no better neg_log_perplexity than that of step 1 in 3 evalu" in capsys.readouterr().out
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [1, 4]
    _train(tmp_path, 50, early_stopping_evals=3, **changes)
    assert "at step 4 of 50: nothing to do" in capsys.readouterr().out


def test_the_best_is_sought_anew_where_another_metric_chooses_it(tmp_path, monkeypatch, capsys):
    """Else -2.5 would not be better than the accuracy 0.4, and would not stay beside it."""
    scores = iter([(-9, 0.1), (-8, 0.4), (-7, 0.2), (-2.5, 0), (-1.5, 0), (-2.0, 0)])

    def evaluate(self, state):
        return {"mine": dict(zip(("neg_log_perplexity", "accuracy"), next(scores), strict=True))}

    monkeypatch.setattr(Evaluation, "__call__", evaluate)
    changes = {
        "eval_period": 1, "checkpoint_period": 1, "keep_checkpoints": 1, "early_stopping_evals": 2
    }  # fmt: skip
    _train(tmp_path, 2, best_metric="accuracy", **changes)
    assert RunFolder(tmp_path).checkpoint_steps() == [1, 2]
    _train(tmp_path, 5, **changes)
    said = "sought anew (BEST_METRIC 'accuracy' -> 'neg_log_perplexity'): evaluations and checkpoi"
    assert said in capsys.readouterr().out
    assert RunFolder(tmp_path).checkpoint_steps() == [4, 5]
    assert chosen_step(tmp_path, "best") == 4


def test_other_streams_are_refused(whole):
    with pytest.raises(UserError, match="DATA_STREAMS is 4, but .* step 6 was made with 2: write"):
        _train(whole[0], 9, data=dataclasses.replace(DATA, data_streams=4))


def test_a_second_job_in_the_folder_is_refused(tmp_path):
    lock = RunLock(RunFolder(tmp_path))
    with pytest.raises(UserError, match=f"in use by process {os.getpid()} on"):
        _train(tmp_path, 3)
    lock.close()


def test_a_signal_saves_and_stops_the_run(whole, tmp_path, monkeypatch):
    class Signalling(TrainBatches):
        def __next__(self):
            batch, position = super().__next__()
            if position.batches == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            return batch, position

    monkeypatch.setattr(train_module, "TrainBatches", Signalling)
    with pytest.raises(Stopped, match="the state of step . is saved") as stopped:
        _train(tmp_path, 6, checkpoint_period=100)
    assert stopped.value.exit_code == 75
    assert read_status(tmp_path).state == "stopped"
    monkeypatch.undo()
    resumed = _train(tmp_path, 6)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole[1]), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.fixture
def stall(monkeypatch):
    """Has the data stop before a batch, by number from 1, and SIGTERM come when none are left."""
    stalled, go_on = threading.Event(), threading.Event()

    def stall(number):
        class Stalling(TrainBatches):
            def __next__(self):
                batch, position = super().__next__()
                if position.batches == number:
                    stalled.set()
                    go_on.wait(60)
                return batch, position

        class Waiting(Prefetch):
            def get(self, seconds=None):
                try:
                    return super().get(seconds)
                except TimeoutError:
                    if stalled.is_set():
                        os.kill(os.getpid(), signal.SIGTERM)
                    raise

        stalled.clear()
        monkeypatch.setattr(train_module, "TrainBatches", Stalling)
        monkeypatch.setattr(train_module, "Prefetch", Waiting)
        monkeypatch.setattr(loop, "_PATIENCE", 0.05)

    yield stall
    go_on.set()


def test_a_signal_while_the_data_stall_saves_what_was_done(whole, tmp_path, stall):
    stall(5)
    with pytest.raises(Stopped, match="the state of step 4 is saved") as stopped:
        _train(tmp_path, 6)
    assert stopped.value.exit_code == 75
    assert [r["step"] for r in _records(tmp_path, "train")] == [2, 3, 4]
    assert _records(tmp_path, "skipped") == []
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [3, 4]
    stall(0)
    resumed = _train(tmp_path, 6)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole[1]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert _hashes(tmp_path) == _hashes(whole[0])


def test_a_signal_while_the_first_data_stall_leaves_no_checkpoint(tmp_path, stall):
    stall(1)
    with pytest.raises(Stopped, match="asked to terminate: no step was done; the same command"):
        _train(tmp_path, 6)
    assert list((tmp_path / "checkpoints").iterdir()) == []
    stall(4)  # right after the checkpoint of step 3: it stays as it is
    with pytest.raises(Stopped, match="the state of step 3 is saved"):
        _train(tmp_path, 6)
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["3"]


def test_a_trace_is_written(tmp_path):
    _train(tmp_path, 3, profile_steps=(2, 3))
    assert list((tmp_path / "tensorboard").glob("plugins/profile/*/*.xplane.pb"))


def _fields(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
