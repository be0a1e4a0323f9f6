"""The shipped corpora, and their span corruption undone by hand."""

import numpy as np
import pytest

from switch_jax.tasks.english import CORPORA, DATA, SPLITS
from tests.tasks.records import shipped


def read(corpus: str, split: str) -> list[str]:
    return shipped(f"{corpus}.{split}.txt.gz")


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_passage_stands_once_and_in_one_split(corpus):
    train, validation = read(corpus, "train"), read(corpus, "validation")
    assert len(train) > 3000 and len(validation) > 100
    assert len({*train, *validation}) == len(train) + len(validation)
    assert all(line == " ".join(line.split()) and line for line in train + validation)


def runs_of_30_words(lines: list[str]) -> np.ndarray:
    """A hash of each, which wraps around."""
    hashes = [np.array([hash(word) for word in line.split()]) for line in lines]
    powers = np.cumprod(np.full(30, 6364136223846793005))
    return np.concatenate([np.convolve(h, powers, "valid") for h in hashes if len(h) >= 30])


@pytest.mark.parametrize("corpus", CORPORA)
def test_no_run_of_words_of_validation_stands_in_train(corpus):
    """Passages are cut anywhere, so 30 words in a row are looked for and not lines."""
    train, validation = (runs_of_30_words(read(corpus, split)) for split in SPLITS)
    assert np.isin(validation, train).mean() < 0.01


def test_all_data_of_the_tasks_are_small_enough_to_ship():
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 7.4e6
