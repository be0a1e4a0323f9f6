"""The questions that come with the library: as text, their scores, and what is known of them."""

import gzip
import json
import re
import socket

import pytest

from switch_jax.data.registry import mixing_rates, provider, tasks_of
from switch_jax.tasks.english import DATA
from tests.tasks.records import preprocess, score, texts
from tests.tasks.test_closed_book import TRIVIA

TASKS = [
    "factbook_qa_open",
    "factbook_boolq",
    "factbook_cb",
    "factbook_multirc",
    "factbook_record",
    "wordnet_wic",
]
SPLITS = ["train", "validation", "test"]
BOOLQ = [
    {"question": "is it so", "passage": "It is so.", "label": "True", "idx": 0},
    {"question": "is it", "passage": "It is not.", "label": "False", "idx": 1},
]
CB = [
    {"premise": "It rains.", "hypothesis": "It is wet.", "label": "entailment", "idx": 0},
    {"premise": "It rains.", "hypothesis": "It is dry.", "label": "contradiction", "idx": 1},
    {"premise": "It rains.", "hypothesis": "She is late.", "label": "neutral", "idx": 2},
]
MULTIRC = [
    {
        "paragraph": "<b>Sent 1:</b> Mali borders Niger.<br>It is large.",
        "question": "Which countries border Mali?",
        "answer": answer,
        "label": label,
        "idx": {"paragraph": 0, "question": question, "answer": number},
    }
    for number, (question, answer, label) in enumerate(
        [(0, "Niger", "True"), (0, "Palau", "False"), (1, "Chad", "False")]
    )
]
RECORD = [
    {
        "passage": "Oslo is in Norway.\n@highlight\nIt is old",
        "query": "@placeholder is a city.",
        "entities": ["Norway", "Oslo"],
        "answers": ["Oslo", "City of Oslo"],
        "idx": {"passage": 0, "query": 0},
    }
]
WIC = [
    {
        "word": "run",
        "sentence1": "He ran a mile.",
        "sentence2": "Run a shop.",
        "start1": 3,
        "end1": 6,
        "start2": 0,
        "end2": 3,
        "label": "False",
        "idx": 0,
    }
]


def read(name: str, split: str) -> list[dict]:
    with gzip.open(DATA / f"{name}.{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_closed_book_questions_are_those_of_trivia_qa_to_model_and_score():
    data_set = provider("trivia_qa_open").source.tfds_dataset.name
    examples = preprocess("factbook_qa_open", TRIVIA, data_set)
    assert texts(examples) == [
        ("trivia_qa question: Who wrote Kim?", "Rudyard Kipling"),
        ("trivia_qa question: Which film won in 1969?", "The Spy-Kids"),
    ]
    assert score("factbook_qa_open", examples, ["kipling", "a spy kids!"])["em"] == 100
    assert score("factbook_qa_open", examples, ["Kim", "spykids"]) == {"em": 0, "f1": 0}


def test_boolq():
    examples = preprocess("factbook_boolq", BOOLQ, "super_glue/boolq:1.0.2")
    assert texts(examples) == [
        ("boolq passage: It is so. question: is it so", "True"),
        ("boolq passage: It is not. question: is it", "False"),
    ]
    assert score("factbook_boolq", examples, ["True", "false"]) == {"accuracy": 50}


def test_cb():
    examples = preprocess("factbook_cb", CB, "super_glue/cb:1.0.2")
    assert texts(examples) == [
        ("cb hypothesis: It is wet. premise: It rains.", "entailment"),
        ("cb hypothesis: It is dry. premise: It rains.", "contradiction"),
        ("cb hypothesis: She is late. premise: It rains.", "neutral"),
    ]
    found = score("factbook_cb", examples, ["entailment", "contradiction", "entailment"])
    # F1 of the classes: 2/3 (precision 1/2, recall 1), 1 and 0.
    expected = {"mean_3class_f1": 100 * (2 / 3 + 1) / 3, "accuracy": 200 / 3}
    assert found == {name: pytest.approx(value) for name, value in expected.items()}


def test_multirc():
    examples = preprocess("factbook_multirc", MULTIRC, "super_glue/multirc:1.0.2")
    assert texts(examples) == [
        (
            f"multirc question: Which countries border Mali? answer: {answer} "
            "paragraph: Sent 1: Mali borders Niger. It is large.",
            target,
        )
        for answer, target in [("Niger", "True"), ("Palau", "False"), ("Chad", "False")]
    ]
    # One of two answers found true is so, none is missed; one of two questions wholly right.
    found = score("factbook_multirc", examples, ["True", "True", "False"])
    assert found == {"f1": pytest.approx(100 * 2 / 3), "exact_match": 50}


def test_record():
    examples = preprocess("factbook_record", RECORD, "super_glue/record:1.0.2")
    asked = (
        "record query: @placeholder is a city. entities: Norway, Oslo "
        "passage: Oslo is in Norway. It is old"
    )
    assert texts(examples) == [(asked, "Oslo"), (asked, "City of Oslo")]
    # One query, asked once for each of its answers, counts once.
    assert score("factbook_record", examples, ["city of oslo", "x"]) == {"em": 100, "f1": 100}
    assert score("factbook_record", examples, ["Norway", "Oslo"]) == {"em": 0, "f1": 0}


def test_wic():
    examples = preprocess("wordnet_wic", WIC, "super_glue/wic:1.0.2")
    asked = "wic sentence1: He ran a mile. sentence2: Run a shop. word: run"
    assert texts(examples) == [(asked, "False")]
    assert score("wordnet_wic", examples, ["False"]) == {"accuracy": 100}


@pytest.mark.parametrize("name", TASKS)
def test_every_split_gives_all_its_records_without_a_connection(name, monkeypatch):
    def refuse(*args):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for split in ["validation", "test"]:
        dataset = provider(name).get_dataset(
            {"inputs": 64, "targets": 64}, split=split, shuffle=False
        )
        examples = list(dataset.as_numpy_iterator())
        assert len(examples) == len(read(name, split)) > 30
        assert all(ex["inputs"][-1] == ex["targets"][-1] == 1 for ex in examples)  # EOS


def test_the_files_say_what_the_model_is_told():
    dataset = provider("factbook_boolq").get_dataset(split="validation", shuffle=False)
    told = [
        (ex["inputs_pretokenized"].decode(), ex["targets_pretokenized"].decode())
        for ex in dataset.as_numpy_iterator()
    ]
    assert told == [
        (f"boolq passage: {record['passage']} question: {record['question']}", record["label"])
        for record in read("factbook_boolq", "validation")
    ]


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("factbook_qa_open", ["question"]),
        ("factbook_boolq", ["passage"]),
        ("factbook_cb", ["premise"]),
        ("factbook_multirc", ["paragraph", "question"]),
        ("factbook_record", ["passage"]),  # short queries recur, of other passages
        ("wordnet_wic", ["sentence1", "sentence2", "word"]),
    ],
)
def test_no_question_or_passage_is_in_two_splits(name, keys):
    found = [{record[key] for record in read(name, split) for key in keys} for split in SPLITS]
    train, validation, test = found
    assert train.isdisjoint(validation) and train.isdisjoint(test) and validation.isdisjoint(test)


def sides(record: dict) -> tuple[str, str]:
    """The country and the other side of the fact that a question of the Factbook asks for."""
    question, answer = record["question"], record["answer"]["value"]
    inverse = r"which country (?:has the capital city|uses the internet code) (.+)\?"
    if found := re.fullmatch(inverse, question):
        return answer, found[1]
    before = "the capital of|point in|code of|used in|anthem of|the people of|when did"
    (country,) = re.findall(rf"(?:{before}) (.+?)(?: called| become independent)?\?$", question)
    return country, answer


def test_closed_book_answers_can_be_known_from_the_training_text():
    with gzip.open(DATA / "factbook.train.txt.gz", "rt", encoding="utf-8") as lines:
        passages = list(lines)
    for split in SPLITS:
        for record in read("factbook_qa_open", split):
            country, other = sides(record)
            assert any(
                passage.startswith(f"{country}. ") and f" {other}" in passage.replace('"', " ")
                for passage in passages
            ), record["question"]
            assert record["answer"]["value"] in record["answer"]["aliases"]


def test_no_fact_is_asked_from_one_side_in_training_and_from_the_other_in_a_test():
    train, validation, test = (
        {
            (kind, *sides(record))
            for record in read("factbook_qa_open", split)
            for kind in ("capital", "internet")
            if kind in record["question"]
        }
        for split in SPLITS
    )
    assert len(test) > 50
    assert train.isdisjoint(validation) and train.isdisjoint(test) and validation.isdisjoint(test)


def test_the_mixture_is_proportional_to_the_training_examples():
    tasks = tasks_of("factbook_super_glue")
    rates = mixing_rates("factbook_super_glue", tasks)
    assert {task.name: rate for task, rate in zip(tasks, rates, strict=True)} == {
        name: len(read(name, "train")) for name in TASKS if name != "factbook_qa_open"
    }


def test_the_notice_that_wordnet_asks_for_is_shipped():
    notice = (DATA / "wordnet_wic.LICENSE.txt").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in notice
    assert 'PROVIDED "AS IS"' in notice
