"""Which records of a checkpoint are computed, and which are reused; without a model."""

import dataclasses
import json
import types

import pytest

from switch_jax.cli.eval import table
from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.evaluation import evaluate as evaluate_module
from switch_jax.evaluation import task_metrics
from switch_jax.evaluation.evaluate import CheckpointEvaluator
from switch_jax.inference import DecodingConfig
from tests.cli import answers
from tests.inference.fakes import FakePredictor
from tests.trainer.helpers import tiny_config, tiny_model

SETTINGS = {"step": 4, "saved": 1}
LOG_PERPLEXITY = {
    "neg_log_perplexity": -2.0, "cross_entropy": 2.0, "accuracy": 0.25, "tokens": 20.0,
    "dropped": 0.5,
}  # fmt: skip


class FakeEvaluation:
    """Teacher-forced metrics of each task; `made` has the number of batches of each instance."""

    made = []

    def __init__(self, config, mesh, parameters, opened, num_batches):
        self.made.append(num_batches)
        self._names = opened.names

    def __call__(self, parameters):
        names = [*self._names, *["all"] * (len(self._names) > 1)]
        return {name: LOG_PERPLEXITY for name in names}


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Evaluates in a new evaluator, as a new command does; `evaluate.loaded`: parameters read."""
    predictor, loaded = FakePredictor(), []
    monkeypatch.setattr(FakeEvaluation, "made", [])
    monkeypatch.setattr(evaluate_module, "TeacherForcedEvaluation", FakeEvaluation)
    monkeypatch.setattr(evaluate_module, "Predictor", lambda *model: predictor)

    def run(task="answers", settings=SETTINGS, num_examples=None, pack=True, **decoding):
        lengths = {"inputs": 32, "targets": 8}
        data = DataConfig(task, lengths, split="validation", pack=pack)
        config = dataclasses.replace(tiny_config(tiny_model(), batch_size=4), data=data)
        model = types.SimpleNamespace(
            path=tmp_path, config=config, mesh=None, parameters=None, load=loaded.append
        )
        decoding = DecodingConfig(8, **decoding)
        evaluator = CheckpointEvaluator(model, decoding, open_tasks(data), num_examples)
        try:
            return evaluator.evaluate(4, settings)
        finally:
            evaluator.close()

    return types.SimpleNamespace(run=run, predictor=predictor, loaded=loaded, folder=tmp_path)


def test_records_of_a_mixture(evaluate):
    records = evaluate.run()
    metrics = {(r["kind"], r["task"]): r["metrics"] for r in records}
    log_prob = -sum(range(10))
    assert metrics == {
        ("teacher_forced", "exact_answers"): LOG_PERPLEXITY,
        ("teacher_forced", "probable_answers"): LOG_PERPLEXITY,
        ("generated", "exact_answers"): {"exact": 0.0},
        ("generated", "probable_answers"): {"log_prob": log_prob, "longest": 2.0},
        # The mean over tasks of each task's mean metric.
        ("generated", "answers"): {"average": (0.0 + (log_prob + 2) / 2) / 2},
    }
    assert {r["step"] for r in records} == {4}
    folder = evaluate.folder / "eval" / "predictions"
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["exact_answers-validation-4.jsonl", "probable_answers-validation-4.jsonl"]
    rows = [json.loads(line) for line in (folder / names[0]).read_text().splitlines()]
    assert [row["inputs"] for row in rows] == answers.QUESTIONS


def test_the_majority_baseline_stands_beside_the_metrics_also_when_they_are_reused(
    evaluate, monkeypatch
):
    baseline = {"exact": 7.0}
    monkeypatch.setattr(task_metrics, "_majority_baseline", lambda task, targets: baseline)
    for _ in range(2):
        records = evaluate.run("exact_answers")
        assert [r.get("majority_baseline") for r in records] == [None, baseline]
        assert [" ".join(line.split()) for line in table(records)] == [
            "step task kind of metric value majority baseline",
            "4 exact_answers teacher forced 20 tokens neg_log_perplexity -2.0000 nats",
            "4 exact_answers teacher forced 20 tokens accuracy 25.00 %",
            "4 exact_answers teacher forced dropped 50.00 %",
            "4 exact_answers generated 10 examples exact 0 7",
        ]
    assert table(records[:1])[0].split()[4:] == ["metric", "value"]


def test_a_single_task_has_no_average_and_one_without_metrics_is_only_teacher_forced(evaluate):
    (record,) = records = evaluate.run("unscored_answers")
    assert record["kind"] == "teacher_forced"
    assert record["metrics"] == LOG_PERPLEXITY | {"perplexity": pytest.approx(7.389056)}  # e^2
    lines = [" ".join(line.split()) for line in table(records)]
    assert "4 unscored_answers teacher forced 20 tokens perplexity 7.389" in lines
    assert evaluate.predictor.calls == []
    assert [r["kind"] for r in evaluate.run("exact_answers")] == ["teacher_forced", "generated"]


def test_records_are_computed_once(evaluate):
    first = evaluate.run()
    file = evaluate.folder / "eval" / "metrics.jsonl"
    content, num_calls = file.read_text(), len(evaluate.predictor.calls)
    assert evaluate.run() == first
    assert file.read_text() == content
    assert (evaluate.loaded, len(evaluate.predictor.calls)) == ([4], num_calls)


@pytest.mark.parametrize(
    ("changes", "num_evaluations"),
    [
        ({"settings": {"step": 4, "saved": 2}}, 2),
        ({"num_examples": 3}, 2),
        ({"num_beams": 2}, 1),  # which is for decoding only
    ],
)
def test_records_with_other_options_are_not_reused(evaluate, changes, num_evaluations):
    evaluate.run("exact_answers")
    evaluate.run("exact_answers", **changes)
    assert evaluate.loaded == [4, 4]
    assert len(evaluate.predictor.calls) == 2
    assert len(FakeEvaluation.made) == num_evaluations


def test_only_the_missing_kind_is_computed(evaluate):
    evaluate.run("exact_answers")
    evaluate.run("answers")
    # The examples of exact_answers were decoded once; all tasks of a mixture are scored together.
    assert [kind for kind, _ in evaluate.predictor.calls] == ["predict", "score"]


def test_packing_matters_to_scores_of_the_targets_alone(evaluate):
    (packed, generated) = evaluate.run("exact_answers")
    assert json.loads(packed["settings"]) == {**SETTINGS, "pack": True}
    (unpacked, again) = evaluate.run("exact_answers", pack=False)
    assert json.loads(unpacked["settings"]) == {**SETTINGS, "pack": False}
    assert len(FakeEvaluation.made) == 2
    assert again == generated and len(evaluate.predictor.calls) == 1


@pytest.mark.parametrize(("num_examples", "num_batches"), [(4, 1), (5, 2), (None, None)])
def test_targets_are_scored_in_whole_batches(evaluate, num_examples, num_batches):
    (_, generated) = evaluate.run("exact_answers", num_examples=num_examples)
    assert FakeEvaluation.made == [num_batches]
    assert generated["examples"] == (num_examples or 10)
