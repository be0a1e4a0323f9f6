"""The corpora that come with the library."""

import numpy as np
import pytest

from switch_jax.tasks.english import CORPORA, DATA
from tests.tasks.records import shipped


def read(corpus: str, split: str) -> list[str]:
    return shipped(f"{corpus}.{split}.txt.gz")


@pytest.mark.parametrize("corpus", CORPORA)
def test_every_passage_stands_once_and_in_one_split(corpus):
    train, validation = read(corpus, "train"), read(corpus, "validation")
    assert len(train) > 3000 and len(validation) > 100
    assert len({*train, *validation}) == len(train) + len(validation)
    assert all(line == " ".join(line.split()) and line for line in train + validation)


def runs_of_30_words(corpus: str, split: str) -> list[int]:
    """A hash of each."""
    passages = [line.split() for line in read(corpus, split)]
    return [hash(tuple(words[i : i + 30])) for words in passages for i in range(len(words) - 29)]


@pytest.mark.parametrize("corpus", CORPORA)
def test_no_run_of_words_of_validation_stands_in_train(corpus):
    """Passages are cut anywhere, so 30 words in a row are looked for and not lines."""
    train = set(runs_of_30_words(corpus, "train"))
    assert np.mean([run in train for run in runs_of_30_words(corpus, "validation")]) < 0.01


def test_all_data_of_the_tasks_are_small_enough_to_ship():
    assert sum(file.stat().st_size for file in DATA.iterdir()) < 7.4e6
