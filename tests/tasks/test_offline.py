"""The questions that come with the library, and what is known of them."""

import json
import re
import socket

import pytest

from switch_jax.data.catalogue.registry import get_mixture_or_task
from switch_jax.tasks.english import DATA
from tests.tasks.records import shipped

# By task: what no two splits have in common.
TASKS = {
    "factbook_qa_open": ["question"],
    "factbook_boolq": ["passage"],
    "factbook_cb": ["premise"],
    "factbook_multirc": ["paragraph", "question"],
    "factbook_record": ["passage"],  # short queries recur, of other passages
    "wordnet_wic": ["sentence1", "sentence2", "word"],
}
SPLITS = ["train", "validation", "test"]


def read(name: str, split: str) -> list[dict]:
    return [json.loads(line) for line in shipped(f"{name}.{split}.jsonl.gz")]


@pytest.mark.parametrize("name", TASKS)
def test_a_split_gives_all_its_records_without_a_connection(name, monkeypatch):
    def refuse(*args):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    lengths = {"inputs": 64, "targets": 64}
    dataset = get_mixture_or_task(name).get_dataset(lengths, split="validation", shuffle=False)
    examples = list(dataset.as_numpy_iterator())
    assert len(examples) == len(read(name, "validation")) > 30 and len(read(name, "test")) > 30
    assert all(ex["inputs"][-1] == ex["targets"][-1] == 1 for ex in examples)  # EOS


@pytest.mark.parametrize("name", TASKS)
def test_no_question_or_passage_is_in_two_splits(name):
    keys = TASKS[name]
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
    passages = shipped("factbook.train.txt.gz")
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


def test_the_notice_that_wordnet_asks_for_is_shipped():
    notice = (DATA / "wordnet_wic.LICENSE.txt").read_text()
    assert "WordNet 3.0 Copyright 2006 by Princeton University.  All rights reserved." in notice
    assert 'PROVIDED "AS IS"' in notice
