"""Beam search against all sequences of a small language, and against a search in lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.inference.beam_search import beam_search
from tests.inference.language import EOS, LENGTH, WORDS, Language, filled

ROWS = 5


def decode(language, beams, length_penalty, valid=None):
    valid = jnp.ones(ROWS, bool) if valid is None else valid
    run = jax.jit(
        lambda cache: beam_search(
            language.step, language.reorder, cache, valid, beams=beams, length=LENGTH, eos=EOS,
            length_penalty=length_penalty,
        )
    )  # fmt: skip
    return jax.device_get(run(language.start(ROWS, beams)))


def score(language, row, words, length_penalty):
    return language.log_prob(row, words) / ((5 + len(words)) / 6) ** length_penalty


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 3.0])
def test_with_beams_for_everything_the_best_of_all_sequences_are_found(length_penalty):
    language, beams = Language(0, ROWS), WORDS ** (LENGTH - 1)
    tokens, scores = decode(language, beams, length_penalty)
    for row in range(ROWS):
        all_ = [(score(language, row, w, length_penalty), w) for w in language.sequences()]
        everything = sorted(all_, reverse=True)[:20]
        assert tokens[row, :20].tolist() == [filled(words) for _, words in everything]
        np.testing.assert_allclose(scores[row, :20], [s for s, _ in everything], atol=1e-4)


def search_in_lists(language, row, beams, length_penalty):
    """The same search with lists, which never ends early."""
    going, ended = [((), 0.0)], []
    for length in range(1, LENGTH + 1):
        ways = [
            ((*words, word), log_prob + language.log_probs(row, words)[word])
            for words, log_prob in going
            for word in range(WORDS)
        ]
        ways = sorted(ways, key=lambda way: -way[1])[: 2 * beams]
        over = [way for way in ways if way[0][-1] == EOS or length == LENGTH]
        ended += [(log_prob / ((5 + length) / 6) ** length_penalty, w) for w, log_prob in over]
        ended = sorted(ended, reverse=True)[:beams]
        going = [way for way in ways if way not in over][:beams]
    return ended


@pytest.mark.parametrize("beams", [2, 3])
@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
def test_few_beams_find_what_a_search_in_lists_finds(beams, length_penalty):
    for seed in range(4):
        language = Language(seed, ROWS)
        tokens, scores = decode(language, beams, length_penalty)
        for row in range(ROWS):
            expected = search_in_lists(language, row, beams, length_penalty)
            assert tokens[row].tolist() == [filled(words) for _, words in expected]
            np.testing.assert_allclose(scores[row], [s for s, _ in expected], atol=1e-5)


def test_a_row_of_padding_gets_no_token():
    valid = jnp.arange(ROWS) != 1
    tokens, scores = decode(Language(0, ROWS), 2, 0.6, valid)
    assert not tokens[1].any() and (scores[1] == -np.inf).all()
    assert tokens[valid].any(axis=-1).all()
