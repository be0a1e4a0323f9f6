import json

import jax
import numpy as np
import pytest

from switch_jax.data.pipeline import DataConfig
from switch_jax.errors import UserError
from switch_jax.metrics import MetricWriter
from switch_jax.partitioning.mesh import MeshConfig
from switch_jax.training.config import RunConfig
from switch_jax.training.guard import GuardConfig
from switch_jax.training.loop import train
from switch_jax.training.loss import LossConfig
from switch_jax.training.optimizer import OptimizerConfig
from tests.training.helpers import tiny_model

DATA = DataConfig("factbook_span_corruption", {"inputs": 32, "targets": 16})
MODEL = tiny_model(vocab_size=1152, sparse_step=1, num_encoder_layers=1, num_decoder_layers=1,
                   group_size=64, dropout_rate=0.1)  # fmt: skip


def _train(folder, steps, mesh=(1, 2, 1), model=MODEL, data=DATA, **changes):
    periods = {"log_period": 2, "eval_period": 3, "eval_batches": 1, "checkpoint_period": 3}
    run = RunConfig(str(folder), train_steps=steps, batch_size=8, **{**periods, **changes})
    optimizer = OptimizerConfig(warmup_steps=100)
    mesh = MeshConfig(*mesh)
    return train(run, model, data, mesh, optimizer, LossConfig(), GuardConfig(), "# config\n")


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
    assert (folder / "config.gin").read_text() == "# config\n"
    assert sorted(int(p.name) for p in (folder / "checkpoints").iterdir()) == [3, 6]
    assert list((folder / "tensorboard").glob("events.*"))
    description = json.loads((folder / "run.json").read_text())
    assert description["num_experts"] == 4
    assert description["mesh"] == {"data": 1, "expert": 2, "model": 1}
    records = _records(folder, "train")
    # Every 2 steps, and before each checkpoint (3, 6), lest it be ahead of the metrics.
    assert [r["step"] for r in records] == [2, 3, 4, 6]
    router = records[-1]["router"]["encoder"]
    assert router["layers"] == [0]
    np.testing.assert_allclose(np.sum(router["load"], 1), 1.0, rtol=1e-5)
    assert 0 <= router["dropped"][0] < 1 and 0 < router["entropy"][0] <= np.log(4)
    assert records[-1]["neg_log_perplexity"] == -records[-1]["cross_entropy"]
    assert 0 < records[0]["seconds"] < records[-1]["seconds"]


def test_a_finished_run_stays_as_it_is(whole, capsys):
    folder, state = whole
    again = _train(folder, 6)
    assert "step 6 of 6: nothing to do" in capsys.readouterr().out
    np.testing.assert_array_equal(again.step, state.step)


def test_a_checkpoint_of_another_model_is_refused_and_kept(whole):
    folder, _ = whole
    with pytest.raises(UserError, match=r"step 6 in .*another model.*wi_0.*32\).*48\)"):
        _train(folder, 9, model=tiny_model(**{**_fields(MODEL), "d_ff": 48}))
    assert sorted(int(p.name) for p in (folder / "checkpoints").iterdir()) == [3, 6]
    assert json.loads((folder / "run.json").read_text())["train_steps"] == 6


def test_a_vocabulary_larger_than_the_embedding_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"1100 ids.*64 rows; set NUM_EMBEDDINGS to 1152"):
        _train(tmp_path, 1, model=tiny_model())


def test_a_half_written_line_spoils_no_other(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "seconds": 2.5}\n{"ki')
    writer = MetricWriter(tmp_path)
    writer.write("eval", 2, 3.5, {"task": "mine", "accuracy": 0.5})
    writer.close()
    last = (tmp_path / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last) == {
        "kind": "eval", "step": 2, "seconds": 3.5, "task": "mine", "accuracy": 0.5
    }  # fmt: skip
    assert writer.last_seconds(1) == 2.5


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"MODEL_DIR '.*file/run' cannot be written: Not a dir"):
        _train(tmp_path / "file" / "run", 1)


def test_only_the_newest_checkpoints_stay(tmp_path):
    _train(tmp_path, 3, checkpoint_period=1, keep_checkpoints=2)
    assert sorted(int(p.name) for p in (tmp_path / "checkpoints").iterdir()) == [2, 3]


def _fields(config):
    return {name: getattr(config, name) for name in config.__dataclass_fields__}
