"""Span corruption of C4 and mC4 on a hand-made page."""

import pytest
import tensorflow_datasets as tfds

from switch_jax.data.registry import provider
from switch_jax.data.vocabularies import with_vocabulary
from switch_jax.tasks.vocabularies import BYTE, MT5, T5
from tests.tasks.records import in_schema

PAGE = {
    "text": "Sphinx of black quartz, judge my vow.",
    "url": "https://example.org",
    "content-type": "text/plain",
    "content-length": "37",
    "timestamp": "2019-04-25T12:57:54Z",
}


@pytest.mark.parametrize("name", ["c4_span_corruption", "mc4.iw"])
def test_the_targets_hold_what_the_inputs_lack(name):
    task = with_vocabulary(provider(name), "byte")
    dataset = task.preprocess_precache(in_schema("c4/en:3.1.0", [PAGE]), seed=0)
    dataset = task.preprocess_postcache(dataset, {"inputs": 64, "targets": 32}, seed=0)
    (example,) = dataset.as_numpy_iterator()
    inputs, targets = example["inputs"].tolist(), example["targets"].tolist()
    assert inputs[-1] == targets[-1] == BYTE.eos_id
    # round(0.15 * 37) = 6 bytes in 2 spans; <extra_id_0> is the last id.
    first, second = BYTE.vocab_size - 1, BYTE.vocab_size - 2
    assert [token for token in inputs if token >= second] == [first, second]
    assert len(inputs) == 37 - 6 + 2 + 1
    assert len(targets) == 6 + 2 + 1
    assert targets[0] == first
    spans = targets[1:-1]
    one, two = spans[: spans.index(second)], spans[spans.index(second) + 1 :]
    i, j = inputs.index(first), inputs.index(second)
    restored = inputs[:i] + one + inputs[i + 1 : j] + two + inputs[j + 1 : -1]
    assert BYTE.decode(restored) == PAGE["text"]


def test_each_pretraining_task_has_the_vocabulary_of_its_paper():
    assert provider("c4_span_corruption").output_features["targets"].vocabulary is T5
    assert provider("mc4.iw").output_features["targets"].vocabulary is MT5


def test_c4_is_the_version_that_tfds_makes():
    assert provider("c4_span_corruption").source.tfds_dataset.name == "c4/en:3.1.0"
    assert str(tfds.builder("c4/en").version) == "3.1.0"
