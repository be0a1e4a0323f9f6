"""The tasks' own metrics within a run, against those that `switch_jax eval` finds afterwards."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest

from switch_jax.checkpointing import chosen_step
from switch_jax.config import Config, DataConfig, MeshConfig, OptimizerConfig, RunConfig
from switch_jax.data.checks import open_tasks
from switch_jax.evaluation.task_metrics import DecodingEvaluation
from switch_jax.inference.predictor import Predictor
from switch_jax.inference.trained_model import ModelFolder, decoding_config, prepare_model
from switch_jax.trainer.train import train
from tests.cli import answers  # noqa: F401  registers its tasks
from tests.run_folder.documented import problems, table_of
from tests.trainer.helpers import tiny_model

DATA = DataConfig("answers", {"inputs": 32, "targets": 8}, data_streams=2)
MODEL = tiny_model(
    num_embeddings=1152, sparse_step=1, num_encoder_layers=1, num_decoder_layers=1, group_size=32
)
BEST = "probable_answers/generated_log_prob"


def config_of(folder, **changes):
    periods = {"eval_period": 2, "checkpoint_period": 1, "keep_checkpoints": 9, "eval_steps": 1}
    run = RunConfig(str(folder), train_steps=3, batch_size=8, **{**periods, **changes})
    return Config(run, MODEL, DATA, MeshConfig(1, 2, 1), OptimizerConfig(warmup_steps=100))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with the tasks' own metrics: its config, its final state, its evaluations."""
    config = config_of(tmp_path_factory.mktemp("run"), infer_eval=True, best_metric=BEST)
    state = train(config)
    lines = (Path(config.run.model_dir) / "metrics.jsonl").read_text().splitlines()
    records = [record for record in map(json.loads, lines) if record["kind"] == "eval"]
    return config, state, records


def test_they_are_those_of_the_checkpoint(finished):
    config, _, records = finished
    found = {(r["step"], r["task"]): r["generated"] for r in records}
    assert sorted({step for step, _ in found}) == [0, 2, 3]
    opened = open_tasks(config.replace("data", split="validation").data)
    model = prepare_model(ModelFolder(Path(config.run.model_dir), None, config, ""))
    with jax.set_mesh(model.mesh):
        predictor = Predictor(model.config, model.mesh, decoding_config(config.data))
        # Of ten examples the first eight, one batch.
        evaluation = DecodingEvaluation(predictor, opened, num_examples=8)
        for step in (2, 3):
            means = []
            for expected in evaluation(model.load(step)):
                assert found[step, expected.task] == pytest.approx(expected.metrics, rel=1e-5)
                means.append(np.mean(list(expected.metrics.values())))
            assert found[step, "all"] == {"average": pytest.approx(np.mean(means), rel=1e-5)}


def test_the_best_checkpoint_is_chosen_by_one_of_them(finished):
    config, _, records = finished
    values = {r["step"]: r["generated"] for r in records if r["task"] == "probable_answers"}
    del values[0]  # no checkpoint
    best = max(values, key=lambda step: values[step]["log_prob"])
    assert chosen_step(Path(config.run.model_dir), "best") == best


def test_the_records_are_as_documented(finished):
    *_, records = finished
    assert [p for record in records for p in problems(record, table_of("eval"))] == []


def test_training_is_the_same_without_them(finished, tmp_path):
    _, state, _ = finished
    jax.tree.map(np.testing.assert_array_equal, train(config_of(tmp_path)), state)
