"""T5's own tasks under T5's names, on records in the schemas of today's TFDS."""

import pytest

from switch_jax.data.registry import mixing_rates, provider, tasks_of
from tests.tasks.records import preprocess, score, texts

COLA = [
    {"sentence": "The cat slept.", "label": 1, "idx": 0},
    {"sentence": "Slept cat the.", "label": 0, "idx": 1},
]
BOOLQ = [{"question": "is it so", "passage": "It is so.", "label": 1, "idx": 7}]
SQUAD = [
    {
        "id": "5733be284776f41900661182",
        "title": "University",
        "context": "Founded in 1842, it is large.",
        "question": "When was it founded?",
        "answers": {"text": ["1842", "in 1842"], "answer_start": [11, 8]},
    }
]
NEWS = [
    {
        "article": "A cat sat.",
        "highlights": "Cat sits .\nMat is warm .",
        "id": "0001d1",
        "publisher": "",
    }
]


def test_glue():
    examples = preprocess("glue_cola_v002", COLA)
    assert texts(examples) == [
        ("cola sentence: The cat slept.", "acceptable"),
        ("cola sentence: Slept cat the.", "unacceptable"),
    ]
    perfect = score("glue_cola_v002", examples, ["acceptable", "unacceptable"])
    assert perfect == {"matthews_corrcoef": 100}
    opposite = score("glue_cola_v002", examples, ["unacceptable", "acceptable"])
    assert opposite == {"matthews_corrcoef": -100}


def test_super_glue():
    examples = preprocess("super_glue_boolq_v102", BOOLQ)
    assert texts(examples) == [("boolq passage: It is so. question: is it so", "True")]
    assert score("super_glue_boolq_v102", examples, ["True"]) == {"accuracy": 100}
    assert score("super_glue_boolq_v102", examples, ["true"]) == {"accuracy": 0}


def test_squad():
    examples = preprocess("squad_v010_allanswers", SQUAD)
    # T5 sets punctuation off by spaces.
    assert texts(examples) == [
        (
            "question: When was it founded ? context: Founded in 1842 , it is large . ",
            "1842",
        )
    ]
    assert score("squad_v010_allanswers", examples, ["In 1842."]) == {"em": 100, "f1": 100}
    # One of two words is right, and it is the whole of the answer.
    found = score("squad_v010_allanswers", examples, ["year 1842"])
    assert found == {"em": 0, "f1": pytest.approx(100 * 2 / 3)}


def test_cnn_daily_mail():
    examples = preprocess("cnn_dailymail_v002", NEWS)
    assert texts(examples) == [("summarize: A cat sat.", "Cat sits .\nMat is warm .")]
    # 2 of the target's 5 words, and 1 of its 4 pairs.
    found = score("cnn_dailymail_v002", examples, ["cat sits"])
    assert found["rouge1"] == pytest.approx(100 * 2 * 2 / (5 + 2))
    assert found["rouge2"] == pytest.approx(100 * 2 * 1 / (4 + 1))


def test_mixtures_and_pretraining_are_found_under_t5_s_names():
    rates = mixing_rates("glue_v002_proportional", tasks_of("glue_v002_proportional"))
    # Training examples of CoLA, SST-2, MRPC, QQP, STS-B, MNLI, QNLI and RTE.
    assert sum(rates) == 8551 + 67349 + 3668 + 363849 + 5749 + 392702 + 104743 + 2490
    names = {task.name for task in tasks_of("super_glue_v102_proportional")}
    assert {"super_glue_record_v102", "super_glue_wic_v102", "dpr_v001_simple"} <= names
    data_set = provider("c4_v220_span_corruption").source.tfds_dataset.name
    assert data_set == "c4/en:2.2.0"
