"""The shipped corpora, and their span corruption undone by hand."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from switch_jax.data.registry import provider
from switch_jax.tasks.english import read_facts
from tests.tasks.records import restore

BIBLE = provider("bible_span_corruption")
CORPORA = ("bible", "factbook", "speeches")
DATA = Path(BIBLE.source.list_shards("train")[0]).parent
VOCABULARY = BIBLE.output_features["targets"].vocabulary
FIRST_SENTINEL = 1000  # after the 1000 pieces


def read(corpus: str, split: str) -> list[str]:
    with gzip.open(DATA / f"{corpus}.{split}.txt.gz", "rt", encoding="utf-8") as lines:
        return [line.rstrip("\n") for line in lines]


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_passage_stands_once_and_in_one_split(corpus):
    train, validation = read(corpus, "train"), read(corpus, "validation")
    assert len(train) > 3000 and len(validation) > 100
    assert len({*train, *validation}) == len(train) + len(validation)
    assert all(line == " ".join(line.split()) and line for line in train + validation)


def test_no_run_of_words_of_validation_stands_in_train():
    """Passages are cut anywhere, so 30 words in a row are looked for and not lines."""
    for corpus in CORPORA:
        train = set()
        for line in read(corpus, "train"):
            words = line.split()
            train.update(hash(tuple(words[i : i + 30])) for i in range(len(words) - 29))
        validation = [line.split() for line in read(corpus, "validation")]
        found = [
            hash(tuple(words[i : i + 30])) in train
            for words in validation
            for i in range(len(words) - 29)
        ]
        assert np.mean(found) < 0.01, corpus


def test_all_data_of_the_tasks_are_small_enough_to_ship():
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 7.1e6


def test_vocabulary_ids():
    model = VOCABULARY.tokenizer
    assert (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id()) == (0, 1, 2, -1)
    assert VOCABULARY.vocab_size == FIRST_SENTINEL + 100
    assert VOCABULARY.decode([1099, 1098, 1000]).split() == [
        "<extra_id_0>",
        "<extra_id_1>",
        "<extra_id_99>",
    ]


def test_span_corruption_can_be_undone():
    dataset = BIBLE.get_dataset(
        {"inputs": 128, "targets": 32}, split="validation", shuffle=False, seed=0
    )
    examples = list(dataset.as_numpy_iterator())
    restored = [
        token for ex in examples for token in restore(ex["inputs"], ex["targets"], FIRST_SENTINEL)
    ]
    text = [token for line in read("bible", "validation") for token in VOCABULARY.encode(line)]
    assert restored == text
    masked = sum((ex["targets"] < FIRST_SENTINEL).sum() - 1 for ex in examples)
    assert masked / len(text) == pytest.approx(0.15, abs=0.005)


def test_a_row_of_facts_is_one_fact_with_its_country():
    """Where the rows are long enough for all."""
    rows = provider("factbook_facts_span_corruption").get_dataset(
        {"inputs": 72, "targets": 20}, split="validation", shuffle=False, seed=0
    )
    restored = [
        VOCABULARY.decode(restore(row["inputs"], row["targets"], FIRST_SENTINEL))
        for row in rows.as_numpy_iterator()
    ]
    facts = list(read_facts("validation"))
    assert len(facts) > 100 and max(map(len, facts)) <= 100
    assert restored == facts


def test_facts_of_a_passage_are_told_apart():
    """A sentence within a fact is no fact, and a number is none that is asked for."""
    facts = list(read_facts("train"))
    assert len(set(facts)) == len(facts)
    assert "Guyana. Capital, name: Georgetown." in facts
    assert "Guyana. Elevation extremes, highest point: Mount Roraima 2,835 m." in facts
    assert not [fact for fact in facts if fact.startswith("Guyana. Current account balance")]
    passages = " ".join(read("factbook", "train"))
    assert all(fact.split(". ", 1)[1] in passages for fact in facts)
