"""seqio's metrics of tasks, with a predictor that has no model."""

import dataclasses
import math

import numpy as np
import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.configured_tasks import OpenedTasks
from switch_jax.data.catalogue.vocabularies import with_vocabulary
from switch_jax.evaluation.task_metrics import DecodingEvaluation, average_of_tasks, check_metrics
from switch_jax.tasks.building_blocks import parse_json_lines
from switch_jax.utils.errors import UserError
from tests.cli import answers
from tests.inference.fakes import FakePredictor
from tests.leaks import left_open
from tests.trainer.helpers import STACKS

QUESTIONS = answers.QUESTIONS
LENGTHS = {"inputs": 32, "targets": 8}
CONFIG = DataConfig("exact_answers", LENGTHS, split="validation")
EXACT, PROBABLE = map(seqio.TaskRegistry.get, ("exact_answers", "probable_answers"))
VOCABULARY = EXACT.output_features["targets"].vocabulary


def answer_even(vocabulary=VOCABULARY):
    """Predicts the right answer to questions 0, 2, ..., with EOS to the end, and else 'wrong'."""

    def predict(inputs, index):
        ids = vocabulary.encode(str(index + 1) if index % 2 == 0 else "wrong")
        return [*ids, *[vocabulary.eos_id] * (LENGTHS["targets"] - len(ids))]

    return FakePredictor(predict)


def evaluation_of(*tasks, predictor=None, num_examples=None, config=CONFIG):
    return DecodingEvaluation(predictor or answer_even(), OpenedTasks(config, tasks), num_examples)


def result_of(task, **options):
    return evaluation_of(task, **options)(task.name, None)


def test_metrics_and_rows_of_predictions():
    predictor = answer_even()
    result = result_of(EXACT, predictor=predictor)
    expected = [str(i + 1) if i % 2 == 0 else "wrong" for i in range(10)]
    assert result.metrics == {"exact": 5 * answers.worth}
    assert result.rows == [
        {"inputs": question, "targets": str(i + 1), "prediction": expected[i]}
        for i, question in enumerate(QUESTIONS)
    ]
    ids = [[*VOCABULARY.encode(question), 1] for question in QUESTIONS]
    assert predictor.calls == [("predict", ids)]


def test_rows_have_inputs_only_where_the_examples_have_them():
    """`features` of tasks.building_blocks declares them for all tasks of text."""
    declared = {
        name: dataclasses.replace(feature, required=name == "targets")
        for name, feature in EXACT.output_features.items()
    }
    without = seqio.map_over_dataset(lambda example: {"targets": example["targets"]})
    steps = [without, *EXACT.preprocessors]
    task = EXACT.replace(preprocessors=steps, output_features=declared)
    config = dataclasses.replace(CONFIG, task_feature_lengths={"targets": 8})
    predictor = FakePredictor(lambda inputs, index: [VOCABULARY.eos_id] * 8)
    result = result_of(task, config=config, predictor=predictor, num_examples=2)
    assert result.rows == [{"targets": str(i + 1), "prediction": ""} for i in range(2)]


def test_metrics_of_all_kinds_take_one_decoding_and_one_scoring():
    def confident(targets, predictions, aux_values):
        np.testing.assert_array_equal(aux_values["scores"], -np.arange(10.0))
        return {"confident": sum(p == t for p, t in zip(predictions, targets, strict=True))}

    predictor = answer_even()
    task = EXACT.replace(metric_fns=[answers.exact, confident, answers.probable])
    result = result_of(task, predictor=predictor)
    assert result.metrics == {
        "exact": 5 * answers.worth, "confident": 5, "log_prob": -45, "longest": 2
    }  # fmt: skip
    assert [row["score"] for row in result.rows] == [-float(i) for i in range(10)]
    assert [kind for kind, _ in predictor.calls] == ["predict", "score"]


def test_a_metric_object_of_seqio_gives_what_its_function_gives():
    metric = seqio.metrics.LegacyMetric.empty(answers.exact, EXACT.postprocess_fn)
    found = result_of(EXACT.replace(metric_fns=[], metric_objs=[metric]))
    assert found == result_of(EXACT)._replace(majority_baseline={})


def test_each_task_that_has_metrics():
    tasks = EXACT, seqio.TaskRegistry.get("unscored_answers"), PROBABLE
    assert evaluation_of(*tasks).tasks == ["exact_answers", "probable_answers"]


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
    found = [result_of(task, num_examples=5).majority_baseline for task in tasks]
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

    metrics = result_of(EXACT.replace(metric_fns=[own]), num_examples=2).metrics
    assert math.isnan(metrics["accuracy"]) and metrics["f1"] == 5.0


def test_examples_in_files_are_read_once(storage):
    file = storage / "rows.jsonl"
    rows = [f'{{"inputs": "{question}", "targets": "{i}"}}' for i, question in enumerate(QUESTIONS)]
    file.write_text("\n".join(rows))
    source = seqio.TextLineDataSource({"validation": str(file)})
    task = EXACT.replace(source=source, preprocessors=[parse_json_lines, *EXACT.preprocessors])
    evaluation = evaluation_of(task)
    for _ in range(2):
        result = evaluation(task.name, None)
        assert [(row["inputs"], row["targets"]) for row in result.rows] == [
            (question, str(i)) for i, question in enumerate(QUESTIONS)
        ]
        file.unlink(missing_ok=True)


def test_a_task_with_another_vocabulary():
    task, config = (
        with_vocabulary(EXACT, "byte"),
        dataclasses.replace(CONFIG, task_feature_lengths={"inputs": 64, "targets": 8}),
    )
    predictor = answer_even(seqio.ByteVocabulary())
    result = result_of(task, predictor=predictor, config=config)
    assert result.metrics == {"exact": 5 * answers.worth}
    assert [row["inputs"] for row in result.rows] == QUESTIONS


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ([lambda targets, predictions: {"exact": 1 / 0}], "cannot be scored: ZeroDivisionError "),
        ([answers.exact] * 2, ": two of its metrics are called exact"),
    ],
)
def test_a_metric_that_fails_names_the_task(metrics, message):
    with pytest.raises(UserError, match=f"^exact_answers ?{message}"):
        result_of(EXACT.replace(metric_fns=metrics), num_examples=2)


def _check(metric):
    task = EXACT.replace(metric_fns=[metric])
    return check_metrics(OpenedTasks(CONFIG, (task,)), STACKS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, r"a metric function returns 0\.5: write a dict of numbers by name, as \{'accu"),
        (None, "a metric function returns None: write a dict"),
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


def test_a_metric_that_needs_more_examples_passes_and_its_names_are_not_known():
    assert _check(lambda targets, predictions: {"tenth": float(targets[9])}) == {EXACT.name: []}
    known = _check(lambda targets, predictions: {"accuracy": 50.0, "f1": 2})
    assert known == {EXACT.name: ["accuracy", "f1"]}


def test_no_evaluation_leaves_a_file_open_or_a_thread():
    evaluation = evaluation_of(EXACT)
    files, threads = left_open(lambda: evaluation(EXACT.name, None), times=8)
    assert files < 5 and threads < 5
