"""Beam search against all sequences of a small language, and against a search in lists."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.inference.beam_search import beam_search
from tests.inference.language import EOS, LENGTH, WORDS, Language, padded

ROWS = 5


def decode(language, beams, length_penalty, valid=None):
    valid = jnp.ones(ROWS, bool) if valid is None else valid
    run = jax.jit(
        lambda cache: beam_search(
            language.step,
            language.reorder,
            cache,
            valid,
            num_beams=beams,
            max_new_tokens=LENGTH,
            eos_id=EOS,
            length_penalty=length_penalty,
        )
    )
    return jax.device_get(run(language.start(ROWS, beams)))


def score(language, row, words, length_penalty):
    return language.log_prob(row, words) / ((5 + len(words)) / 6) ** length_penalty


@pytest.mark.parametrize("length_penalty", [0.0, 3.0])
def test_enough_beams_find_the_best_of_all_sequences(length_penalty):
    language, beams = Language(0, ROWS), WORDS ** (LENGTH - 1)
    tokens, scores = decode(language, beams, length_penalty)
    for row in range(ROWS):
        all_ = [(score(language, row, w, length_penalty), w) for w in language.sequences()]
        best = sorted(all_, reverse=True)[:20]
        assert tokens[row, :20].tolist() == [padded(words) for _, words in best]
        np.testing.assert_allclose(scores[row, :20], [s for s, _ in best], atol=1e-4)


def search_in_lists(language, row, beams, length_penalty):
    """Searches as `beam_search`, but with lists, and never stops early."""
    live, finished = [((), 0.0)], []
    for length in range(1, LENGTH + 1):
        extended = [
            ((*words, word), log_prob + language.log_probs(row, words)[word])
            for words, log_prob in live
            for word in range(WORDS)
        ]
        extended = sorted(extended, key=lambda beam: -beam[1])[: 2 * beams]
        ended = [beam for beam in extended if beam[0][-1] == EOS or length == LENGTH]
        finished += [(log_prob / ((5 + length) / 6) ** length_penalty, w) for w, log_prob in ended]
        finished = sorted(finished, reverse=True)[:beams]
        live = [beam for beam in extended if beam not in ended][:beams]
    return finished


@pytest.mark.parametrize(("beams", "length_penalty"), [(2, 0.6), (3, 2.0)])
def test_few_beams_equal_a_search_in_lists(beams, length_penalty):
    for seed in range(2):
        language = Language(seed, ROWS)
        tokens, scores = decode(language, beams, length_penalty)
        for row in range(ROWS):
            expected = search_in_lists(language, row, beams, length_penalty)
            assert tokens[row].tolist() == [padded(words) for _, words in expected]
            np.testing.assert_allclose(scores[row], [s for s, _ in expected], atol=1e-5)


def test_a_row_of_padding_gets_no_tokens():
    valid = jnp.arange(ROWS) != 1
    tokens, scores = decode(Language(0, ROWS), 2, 0.6, valid)
    assert not tokens[1].any() and (scores[1] == -np.inf).all()
    assert tokens[valid].any(axis=-1).all()
