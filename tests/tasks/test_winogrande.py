"""WinoGrande's sentences with their options, and the accuracy of the generated option."""

import pytest

from switch_jax.data.registry import provider
from tests.tasks.records import preprocess, score, texts

SENTENCE = "The trophy doesn't fit into the suitcase because the _ is too large."
RECORDS = [
    {"sentence": SENTENCE, "option1": "trophy", "option2": "suitcase", "label": "1"},
    {"sentence": "Ian gave _ a bow.", "option1": "Ian", "option2": "Dennis", "label": "2"},
    {"sentence": "_ slept.", "option1": "Ann", "option2": "Sue", "label": -1},
]


@pytest.mark.parametrize("size", ["xs", "s", "m", "l", "xl"])
def test_records_become_text(size):
    name = f"winogrande_{size}"
    assert texts(preprocess(name, RECORDS)) == [
        (f"winogrande sentence: {SENTENCE} option1: trophy option2: suitcase", "trophy"),
        ("winogrande sentence: Ian gave _ a bow. option1: Ian option2: Dennis", "Dennis"),
        ("winogrande sentence: _ slept. option1: Ann option2: Sue", "<unk>"),
    ]
    assert provider(name).source.tfds_dataset._map_split("train") == f"train_{size}"


def test_accuracy_of_the_generated_text():
    examples = preprocess("winogrande_xl", RECORDS[:2])
    assert score("winogrande_xl", examples, ["Trophy", "Ian"]) == {"accuracy": 50}
