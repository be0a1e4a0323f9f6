"""The declarations of human rights: languages, what is held out, and rates."""

import functools
import json

import numpy as np
import pytest

from switch_jax.data.catalogue.registry import get_mixture_or_task
from tests.tasks.records import rates_of, shipped
from tests.tasks.test_mc4 import CODES

LANGUAGES = [code for code in CODES if code != "sd" and not code.endswith("-Latn")]


@functools.cache
def read(split: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in shipped(f"udhr.{split}.jsonl.gz")]


def passages(code: str, split: str) -> list[str]:
    return [record["text"] for record in read(split) if record["language"] == code]


def test_every_language_of_mc4_but_sindhi_has_its_text_in_both_splits():
    assert len(LANGUAGES) == 100
    for split in ("train", "validation"):
        assert {record["language"] for record in read(split)} == set(LANGUAGES)
        for code in ("en", "zh"):
            dataset = get_mixture_or_task(f"udhr.{code}").source.get_dataset(split, shuffle=False)
            found = [ex["text"].decode() for ex in dataset.as_numpy_iterator()]
            assert found == passages(code, split)


def test_the_last_three_articles_are_held_out():
    (held_out,) = passages("en", "validation")
    assert held_out.startswith("Article 28 Everyone is entitled to a social and international")
    assert " Article 29 " in held_out and " Article 30 " in held_out
    trained = passages("en", "train")
    assert "Article 27 Everyone has the right freely to participate" in " ".join(trained)
    for code in ("af", "en", "fr", "pt", "ru", "zh"):
        numbers = [n for n in ("28", "29", "30") if n in " ".join(passages(code, "train"))]
        assert not numbers, code


def test_no_run_of_characters_of_validation_stands_in_train():
    def windows(code: str, split: str) -> list[str]:
        return [text[i : i + 40] for text in passages(code, split) for i in range(len(text) - 39)]

    for code in ("ar", "en", "ja", "pt", "zh"):
        trained = set(windows(code, "train"))
        assert np.mean([run in trained for run in windows(code, "validation")]) < 0.1, code


@pytest.mark.parametrize("mixture", ["udhr", "udhr_prefix_lm", "udhr_full_lm"])
def test_a_mixture_is_sampled_by_the_number_of_passages_to_the_power_of_0_3(mixture):
    counted = [record["language"] for record in read("train")]
    assert rates_of(mixture) == {
        f"{mixture}.{code}": pytest.approx(np.exp(0.3 * np.log(counted.count(code))))
        for code in LANGUAGES
    }


def test_what_no_piece_has_is_written_in_bytes():
    vocabulary = get_mixture_or_task("udhr.en").output_features["targets"].vocabulary
    assert vocabulary.vocab_size == 8000 + 100
    assert vocabulary.decode(vocabulary.encode("right \N{OX}")) == "right \N{OX}"
