"""The shipped corpora, and their span corruption undone by hand."""

import numpy as np
import pytest

from switch_jax.tasks.english import DATA, VOCABULARY
from tests.tasks.records import shipped

CORPORA = ("bible", "factbook", "speeches")
FIRST_SENTINEL = 1000  # after the 1000 pieces


def read(corpus: str, split: str) -> list[str]:
    return shipped(f"{corpus}.{split}.txt.gz")


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
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 7.4e6


def test_vocabulary_ids():
    model = VOCABULARY.tokenizer
    assert (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id()) == (0, 1, 2, -1)
    assert VOCABULARY.vocab_size == FIRST_SENTINEL + 100
    assert VOCABULARY.decode([1099, 1098, 1000]).split() == [
        "<extra_id_0>",
        "<extra_id_1>",
        "<extra_id_99>",
    ]
