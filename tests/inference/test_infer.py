"""Results as text and in the order of the examples, with a predictor that has no model."""

import math

import numpy as np
import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.inference import infer
from switch_jax.inference.input_records import TextExample, TextFeature, encode, read_records
from switch_jax.inference.predictor import Prediction
from switch_jax.utils.errors import UserError
from tests.cli import answers  # registers tasks
from tests.inference.fakes import FakePredictor
from tests.leaks import left_open
from tests.trainer.helpers import STACKS

BYTES = seqio.ByteVocabulary()
LENGTHS = {"inputs": 32, "targets": 8}
FEATURES = {name: TextFeature(BYTES, length, [1]) for name, length in LENGTHS.items()}


def example(inputs, cut=(), unknown=(), **more):
    text = {"inputs": inputs, **more}
    ids = {name: np.array(BYTES.encode(value), np.int32) for name, value in text.items()}
    return TextExample(text, ids, dict(cut), dict(unknown))


def with_index(inputs, index):
    """Predicts the inputs and the index."""
    return [*inputs, *BYTES.encode(str(index)), BYTES.eos_id]


def predictions(examples, predictor=None, **options):
    return list(
        infer.predict_or_score(
            predictor or FakePredictor(with_index), None, examples, FEATURES, **options
        )
    )


def scores(examples, predictor=None, **options):
    return list(
        infer.predict_or_score(predictor or FakePredictor(), None, examples, None, **options)
    )


CUT = {"inputs": 3, "targets": 2}  # tokens that are left out


def test_predictions_are_text_in_the_order_of_the_examples():
    unknown = {"inputs": 2, "targets": 1}
    examples = [example("a"), example("é", CUT, unknown, targets="not read")]
    notes = {"cut": {"inputs": 3}, "unknown": {"inputs": 2}}
    assert predictions(examples, first_id=7) == [
        {"inputs": "a", "prediction": "a7", "score": -7.0},
        {"inputs": "é", "prediction": "é8", "score": -8.0, **notes},
    ]


def test_scores_repeat_inputs_and_targets():
    note = "other fields are dropped"
    assert scores([example("a", targets="x", note=note), example("b", CUT, targets="")]) == [
        {"inputs": "a", "targets": "x", "score": 0.0},
        {"inputs": "b", "targets": "", "score": -1.0, "cut": CUT},
    ]


@pytest.mark.parametrize("score", [-math.inf, math.nan])
def test_a_score_that_json_cannot_hold_is_null(score):
    class Predictor:
        def predict(self, parameters, examples, first_id):
            return [Prediction(np.array([1], np.int32), score) for _ in examples]

        def score(self, parameters, examples):
            return [score for _ in examples]

    found = predictions([example("a")], Predictor()) + scores(
        [example("a", targets="b")], Predictor()
    )
    assert [result["score"] for result in found] == [None, None]


def test_an_example_without_targets_is_named_by_its_number_in_the_file():
    examples = [example("a", targets="x"), example("b")]
    with pytest.raises(UserError, match="record 12 has no 'targets' to score: write"):
        scores(examples, first_id=10)


def test_examples_of_a_mixture_are_those_of_each_task_in_order():
    opened = open_tasks(DataConfig("answers", LENGTHS, split="validation"))
    examples = list(infer.task_examples(opened, STACKS))
    assert [e.text["inputs"] for e in examples] == answers.QUESTIONS * 2
    assert [e.text["targets"] for e in examples] == [str(i + 1) for i in range(10)] * 2
    features = opened.tasks[0].output_features
    for name, text in examples[3].text.items():
        assert examples[3].ids[name].tolist() == [*features[name].vocabulary.encode(text), 1]


def test_an_example_of_a_task_counts_its_unknown_tokens():
    """The English vocabulary lacks the line of "trivia_qa question: ..."."""
    lengths = {"inputs": 64, "targets": 16}
    opened = open_tasks(DataConfig("factbook_qa_open", lengths, split="validation"))
    assert next(infer.task_examples(opened, STACKS)).unknown == {"inputs": 1}


def test_no_file_that_is_answered_stays_open(tmp_path):
    (tmp_path / "texts.txt").write_text("a\n" * 40)

    def answer():
        records = read_records(str(tmp_path / "texts.txt"))
        assert len(predictions([encode(r, FEATURES) for r in records])) == 40

    files, threads = left_open(answer, times=30)
    assert files < 10 and threads < 10
