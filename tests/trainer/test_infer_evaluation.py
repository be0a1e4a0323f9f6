"""The tasks' own metrics within a run, against those that `switch_jax eval` finds afterwards."""

from pathlib import Path

import jax
import numpy as np
import pytest

from switch_jax.checkpointing import chosen_step
from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.evaluation.task_metrics import DecodingEvaluation
from switch_jax.inference.predictor import Predictor
from switch_jax.inference.trained_model import ModelFolder, decoding_config, prepare_model
from switch_jax.trainer.train import train
from tests.cli import answers  # noqa: F401  registers its tasks
from tests.run_folder.documented import problems, table_of
from tests.trainer.tiny_runs import DENSE, config_of, records_of

DATA = DataConfig("answers", {"inputs": 32, "targets": 8}, data_streams=2)
BEST = "probable_answers/generated_log_prob"
PERIODS = {"eval_period": 2, "checkpoint_period": 1, "keep_checkpoints": 9, "eval_steps": 1}


def run_of(folder, **changes):
    return config_of(folder, 3, (1, 2, 1), DENSE, DATA, **PERIODS, **changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run with the tasks' own metrics: its config, its final state, its evaluations."""
    config = run_of(tmp_path_factory.mktemp("run"), infer_eval=True, best_metric=BEST)
    state = train(config)
    return config, state, records_of(Path(config.run.model_dir), "eval")


def test_they_are_those_of_the_checkpoint(finished):
    config, _, records = finished
    assert [p for record in records for p in problems(record, table_of("eval"))] == []
    found = {(r["step"], r["task"]): r["generated"] for r in records}
    examples = {"exact_answers": 8, "probable_answers": 8, "all": 16}  # a batch of each task
    assert {r["task"]: r["examples"] for r in records} == examples
    assert sorted({step for step, _ in found}) == [0, 2, 3]
    opened = open_tasks(config.replace("data", split="validation").data)
    model = prepare_model(ModelFolder(Path(config.run.model_dir), None, config, ""))
    with jax.set_mesh(model.mesh):
        predictor = Predictor(model.config, model.mesh, decoding_config(config.data))
        # Of ten examples the first eight, one batch.
        evaluation = DecodingEvaluation(predictor, opened, num_examples=8)
        for step in (2, 3):
            means = []
            for task in evaluation.tasks:
                expected = evaluation(task, model.load(step))
                assert found[step, task] == pytest.approx(expected.metrics, rel=1e-5)
                means.append(np.mean(list(expected.metrics.values())))
            assert found[step, "all"] == {"average": pytest.approx(np.mean(means), rel=1e-5)}


def test_the_best_checkpoint_is_chosen_by_one_of_them(finished):
    config, _, records = finished
    values = {r["step"]: r["generated"] for r in records if r["task"] == "probable_answers"}
    del values[0]  # no checkpoint
    best = max(values, key=lambda step: values[step]["log_prob"])
    assert chosen_step(Path(config.run.model_dir), "best") == best


def test_training_is_the_same_without_them(finished, tmp_path):
    _, state, _ = finished
    jax.tree.map(np.testing.assert_array_equal, train(run_of(tmp_path)), state)
