"""seqio's metrics of a task, with a predictor that has no model."""

import dataclasses
import math

import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.data.configured_tasks import OpenedTasks
from switch_jax.data.vocabularies import with_vocabulary
from switch_jax.errors import UserError
from switch_jax.evaluation.task_evaluator import TaskEvaluator, average_of_tasks, check_metrics
from switch_jax.tasks.building_blocks import parse_json_lines
from tests.cli import answers
from tests.inference.fakes import FakePredictor
from tests.leaks import left_open

QUESTIONS = answers.QUESTIONS
LENGTHS = {"inputs": 32, "targets": 8}
CONFIG = DataConfig("exact_answers", LENGTHS, split="validation")
EXACT = seqio.TaskRegistry.get("exact_answers")
VOCABULARY = EXACT.output_features["targets"].vocabulary


def answer_even(vocabulary):
    """Predicts the right answer to questions 0, 2, ..., with EOS to the end, and else 'wrong'."""

    def predict(inputs, index):
        ids = vocabulary.encode(str(index + 1) if index % 2 == 0 else "wrong")
        return [*ids, *[vocabulary.eos_id] * (LENGTHS["targets"] - len(ids))]

    return FakePredictor(predict)


def test_metrics_and_rows_of_predictions():
    evaluator = TaskEvaluator(EXACT, CONFIG)
    predictor = answer_even(VOCABULARY)
    metrics, rows = evaluator.evaluate(predictor, None)
    assert evaluator.num_examples == 10
    assert metrics == {"exact": 5 * answers.worth}
    assert [row["inputs"] for row in rows] == QUESTIONS
    assert [row["targets"] for row in rows] == [str(i + 1) for i in range(10)]
    expected = [str(i + 1) if i % 2 == 0 else "wrong" for i in range(10)]
    assert [row["prediction"] for row in rows] == expected
    # The ids of the questions, without padding.
    features = EXACT.output_features["inputs"]
    ids = [[*features.vocabulary.encode(question), 1] for question in QUESTIONS]
    assert predictor.calls == [("predict", ids)]


def test_metrics_and_rows_of_scores():
    task = seqio.TaskRegistry.get("probable_answers")
    predictor = FakePredictor()
    metrics, rows = TaskEvaluator(task, CONFIG).evaluate(predictor, None)
    assert metrics == {"log_prob": -sum(range(10)), "longest": 2}
    assert [row["score"] for row in rows] == [-float(i) for i in range(10)]
    assert [kind for kind, _ in predictor.calls] == ["score"]


def test_the_majority_baseline_is_of_the_most_frequent_target():
    """The targets are 1 to 5, of which three are odd. Some metrics need unlike predictions."""

    def spread(targets, predictions):
        return {"spread": 1 / (len(set(predictions)) - 1)}

    def correlation(targets, predictions):
        return {"correlation": 0.5 if len(set(predictions)) > 1 else math.nan}

    parity = {"1": "odd", "2": "even", "3": "odd", "4": "even", "5": "odd"}
    tasks = [
        EXACT.replace(
            postprocess_fn=lambda text, **_: parity.get(text.strip(), "wrong"),
            metric_fns=[answers.exact, spread, correlation],
        ),
        EXACT,
        EXACT.replace(postprocess_fn=lambda text, **_: ["odd"]),  # an answer of several values
    ]
    found = []
    for task in tasks:
        evaluator = TaskEvaluator(task, CONFIG, num_examples=5)
        evaluator.evaluate(answer_even(VOCABULARY), None)
        found.append(evaluator.majority_baseline)
    assert found == [{"exact": 3 * answers.worth}, {}, {}]


def test_the_average_is_that_of_glue_which_counts_mnli_once():
    metrics = {
        "glue_cola_v002": {"matthews_corrcoef": 60.0},
        "glue_mrpc_v002": {"f1": 92.0, "accuracy": 88.0},  # 90
        "glue_mnli_matched_v002": {"accuracy": 80.0},
        "glue_wnli_v002": {"accuracy": 56.0},
        "glue_mnli_mismatched_v002": {"accuracy": 84.0},  # 82 with the matched ones
    }
    assert average_of_tasks(metrics) == pytest.approx((60 + 90 + 82 + 56) / 4)


def test_a_metric_without_a_number_counts_as_0_in_the_average():
    metrics = {
        "glue_stsb_v002": {"pearson_corrcoef": math.nan, "spearman_corrcoef": 80.0},
        "glue_mrpc_v002": {"f1": None, "accuracy": 88.0},
        "glue_cola_v002": {"matthews_corrcoef": None},
    }
    assert average_of_tasks(metrics) == pytest.approx((40 + 44 + 0) / 3)
    assert math.isnan(average_of_tasks({"without_metrics": {}}))


def test_a_metric_may_be_none_and_then_is_no_number():
    def own(targets, predictions):
        return {"accuracy": None, "f1": 5.0}

    metrics, _ = TaskEvaluator(EXACT.replace(metric_fns=[own]), CONFIG, num_examples=2).evaluate(
        FakePredictor(), None
    )
    assert math.isnan(metrics["accuracy"]) and metrics["f1"] == 5.0


def test_no_targets_have_no_majority_baseline():
    evaluator = TaskEvaluator(EXACT, CONFIG, num_examples=2)
    evaluator._outputs = {"targets": []}  # as of a postprocessor that leaves all of them out
    assert evaluator.majority_baseline == {}


def test_only_the_first_examples():
    evaluator = TaskEvaluator(EXACT, CONFIG, num_examples=3)
    metrics, rows = evaluator.evaluate(answer_even(VOCABULARY), None)
    assert evaluator.num_examples == 3
    assert metrics == {"exact": 2 * answers.worth}
    assert [row["inputs"] for row in rows] == QUESTIONS[:3]


def test_examples_in_files(storage):
    rows = [f'{{"inputs": "{question}", "targets": "{i}"}}' for i, question in enumerate(QUESTIONS)]
    (storage / "rows.jsonl").write_text("\n".join(rows))
    source = seqio.TextLineDataSource({"validation": str(storage / "rows.jsonl")})
    task = EXACT.replace(source=source, preprocessors=[parse_json_lines, *EXACT.preprocessors])
    _, rows = TaskEvaluator(task, CONFIG).evaluate(FakePredictor(), None)
    assert [(row["inputs"], row["targets"]) for row in rows] == [
        (question, str(i)) for i, question in enumerate(QUESTIONS)
    ]


def test_examples_are_evaluated_again_with_another_predictor():
    evaluator = TaskEvaluator(EXACT, CONFIG)
    assert evaluator.evaluate(FakePredictor(), None)[0] == {"exact": 0.0}
    assert evaluator.evaluate(answer_even(VOCABULARY), None)[0] == {"exact": 5 * answers.worth}


def test_a_task_with_another_vocabulary_is_registered_only_while_it_is_read():
    names = set(seqio.TaskRegistry.names())
    task = with_vocabulary(EXACT, "byte")
    lengths = {"inputs": 64, "targets": 8}
    evaluator = TaskEvaluator(task, dataclasses.replace(CONFIG, task_feature_lengths=lengths))
    assert set(seqio.TaskRegistry.names()) == names
    predictor = answer_even(seqio.ByteVocabulary())
    metrics, rows = evaluator.evaluate(predictor, None)
    assert metrics == {"exact": 5 * answers.worth}
    assert [row["inputs"] for row in rows] == QUESTIONS


@pytest.mark.parametrize(
    ("worth", "message"),
    [
        (None, "exact_answers cannot be scored: TypeError "),
        ([], r"exact_answers: its metric 'exact' is not a number: \[\]"),
    ],
)
def test_a_metric_that_fails_names_the_task(worth, message, monkeypatch):
    monkeypatch.setattr(answers, "worth", worth)
    with pytest.raises(UserError, match=message):
        TaskEvaluator(EXACT, CONFIG, num_examples=2).evaluate(FakePredictor(), None)


def _check(metric):
    task = EXACT.replace(metric_fns=[metric])
    check_metrics(OpenedTasks(CONFIG, (task,)))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, r"its metric function \w+ returns 0\.5: write a dict of numbers by name, as \{'accu"),
        (None, r"its metric function \w+ returns None: write a dict"),
        ({"accuracy": "high"}, "its metric 'accuracy' is not a number: 'high'"),
    ],
)
def test_a_metric_that_returns_no_dict_of_numbers_is_found_without_a_model(value, message):
    def own(targets, predictions):
        assert targets == predictions == ["1", "2"]
        return value

    def of_scores(targets, scores):
        assert (targets, len(scores)) == (["1", "2"], 2)
        return value

    for metric in (own, of_scores):
        with pytest.raises(UserError, match=f"^exact_answers: {message}"):
            _check(metric)


def test_a_metric_with_other_arguments_is_refused():
    with pytest.raises(UserError, match=r"^exact_answers: .*Got: \('predictions',\)$"):
        _check(lambda predictions: {"accuracy": 1.0})


def test_a_metric_that_needs_more_examples_passes():
    _check(lambda targets, predictions: {"tenth": float(targets[9])})
    _check(lambda targets, predictions: {"accuracy": 50.0})


def test_no_evaluation_leaves_a_file_open_or_a_thread():
    evaluator, predictor = TaskEvaluator(EXACT, CONFIG), answer_even(VOCABULARY)
    files, threads = left_open(lambda: evaluator.evaluate(predictor, None), times=8)
    assert files < 5 and threads < 5
