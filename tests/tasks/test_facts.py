"""Facts as questions with a masked answer: their rows, and that they are those that are asked."""

import gzip
import json

import pytest

from switch_jax import gin_config
from switch_jax.data.registry import mixing_rates, provider, tasks_of
from switch_jax.tasks.english import DATA, VOCABULARY
from switch_jax.tasks.facts import read_facts, read_questions


def through_vocabulary(text):
    return VOCABULARY.decode(VOCABULARY.encode(text))


def test_a_row_is_a_question_with_the_answer_masked():
    task = provider("factbook_facts")
    assert list(task.splits) == ["train"]
    rows = task.get_dataset({"inputs": 64, "targets": 48}, split="train", shuffle=False, seed=0)
    found = [
        tuple(VOCABULARY.decode(row[name]) for name in ("inputs", "targets"))
        for row in rows.as_numpy_iterator()
    ]
    assert ("what is the capital of Guyana? <extra_id_0>", "<extra_id_0> Georgetown") in found
    assert (
        "which country has the capital city Georgetown? <extra_id_0>",
        "<extra_id_0> Guyana",
    ) in found
    # SentencePiece writes some characters in another way.
    assert found == [
        (
            through_vocabulary(f"{question} <extra_id_0>"),
            through_vocabulary(f"<extra_id_0> {answer}"),
        )
        for question, answer in read_questions()
    ]
    assert len(found) > 2000


def test_a_value_is_without_what_explains_it():
    facts = set(read_facts())
    for fact in (
        ("Guyana", "Elevation extremes, highest point", "Mount Roraima"),
        ("Serbia", "Capital, name", "Belgrade"),
        ("Malawi", "Independence", "6 July 1964"),
        ("Somalia", "Exchange rates", "Somali shillings"),
        ("Norway", "National anthem, name", "Ja, vi elsker dette landet"),
        ("Zimbabwe", "National anthem, name", "Kalibusiswe Ilizwe leZimbabwe"),
    ):
        assert fact in facts


def test_the_questions_of_the_validation_set_are_among_the_facts():
    known = dict(read_questions())
    with gzip.open(DATA / "factbook_qa_open.validation.jsonl.gz", "rt", encoding="utf-8") as lines:
        asked = [json.loads(line) for line in lines]
    assert len(asked) == 202
    for record in asked:
        question = record["question"].replace("which city is", "what is")
        assert known[question] in record["answer"]["aliases"]


def test_no_question_or_answer_is_cut():
    read = gin_config.read(
        ["models/t5_demo.gin", "runs/facts.gin"],
        ["MODEL_DIR=unwritten", "INITIAL_CHECKPOINT_PATH=unread"],
    )
    lengths = read.config.data.task_feature_lengths
    for question, answer in read_questions():
        texts = {"inputs": f"{question} <extra_id_0>", "targets": f"<extra_id_0> {answer}"}
        for feature, text in texts.items():
            assert len(VOCABULARY.encode(text)) + 1 <= lengths[feature], text  # and EOS


def test_four_rows_of_facts_for_a_row_of_text():
    tasks = tasks_of("english_and_facts")
    rates = mixing_rates("english_and_facts", tasks)
    by_name = {task.name: rate for task, rate in zip(tasks, rates, strict=True)}
    facts = by_name.pop("factbook_facts")
    assert set(by_name) == {
        f"{corpus}_span_corruption" for corpus in ("bible", "factbook", "speeches")
    }
    assert facts == pytest.approx(4 * sum(by_name.values()))
