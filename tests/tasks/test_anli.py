"""ANLI in the words of T5's MNLI, and its accuracy."""

import pytest

from switch_jax.data.registry import mixing_rates, tasks_of
from tests.tasks.records import preprocess, score, texts

RECORDS = [
    {
        "uid": "a1",
        "context": "Ernest Jones is a British jeweller. It was founded in 1949.",
        "hypothesis": "Ernest Jones was founded in the last century.",
        "label": "e",
    },
    {"uid": "a2", "context": "It rains.", "hypothesis": "It snows.", "label": "c"},
    {"uid": "a3", "context": "It rains.", "hypothesis": "She is late.", "label": "n"},
]


@pytest.mark.parametrize("name", ["anli_r1", "anli_r2", "anli_r3"])
def test_records_become_text(name):
    assert texts(preprocess(name, RECORDS)) == [
        (
            "anli hypothesis: Ernest Jones was founded in the last century. premise: "
            "Ernest Jones is a British jeweller. It was founded in 1949.",
            "entailment",
        ),
        ("anli hypothesis: It snows. premise: It rains.", "contradiction"),
        ("anli hypothesis: She is late. premise: It rains.", "neutral"),
    ]


def test_accuracy():
    examples = preprocess("anli_r3", RECORDS)
    answers = ["entailment", "neutral", "no class"]
    assert score("anli_r3", examples, answers) == {"accuracy": pytest.approx(100 / 3)}


def test_the_mixture_is_proportional_to_the_training_examples():
    rates = dict(zip(["r1", "r2", "r3"], mixing_rates("anli", tasks_of("anli")), strict=True))
    assert rates == {"r1": 16946, "r2": 45460, "r3": 100459}
