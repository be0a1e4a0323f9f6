"""Greedy decoding and sampling, against all sequences of a small language."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.inference.sampling import sample, truncate_logits
from tests.inference.language import EOS, LENGTH, Language, padded

ROWS = 6


def decode(language, rows=ROWS, valid=None, keys=None, **choices):
    keys = jax.random.split(jax.random.key(0), rows) if keys is None else keys
    valid = jnp.ones(rows, bool) if valid is None else valid
    run = jax.jit(
        lambda keys: sample(
            language.step,
            language.start(rows, 1),
            valid,
            keys,
            max_new_tokens=LENGTH,
            eos_id=EOS,
            **{"temperature": 0.0, **choices},
        )
    )
    return jax.device_get(run(keys))


def greedy(language, row):
    words = []
    while len(words) < LENGTH and EOS not in words:
        words.append(int(np.argmax(language.logits(row, words))))
    return words


def test_greedy_takes_the_most_probable_word_each_time():
    language = Language(1, ROWS)
    tokens, scores = decode(language)
    expected = [greedy(language, row) for row in range(ROWS)]
    assert {len(words) for words in expected} >= {2, LENGTH}, "some should end and some not"
    assert tokens[:, 0].tolist() == [padded(words) for words in expected]
    log_probs = [language.log_prob(row, words) for row, words in enumerate(expected)]
    np.testing.assert_allclose(scores[:, 0], log_probs, atol=1e-5)


def test_a_row_of_padding_gets_no_tokens():
    valid = jnp.arange(ROWS) != 2
    tokens, scores = decode(Language(1, ROWS), valid=valid)
    assert not tokens[2].any() and scores[2] == 0
    assert tokens[valid].any(axis=-1).all()


@pytest.mark.parametrize(
    "choices, allowed",
    [
        ({"temperature": 0.5}, lambda p: p > 0),
        ({"temperature": 1.0, "top_k": 2}, lambda p: np.argsort(np.argsort(-p)) < 2),
        ({"temperature": 1.0, "top_p": 0.7}, lambda p: p >= _least_of(p, 0.7)),
    ],
    ids=["temperature 0.5", "top k", "top p"],
)
def test_sequences_are_sampled_with_their_probabilities(choices, allowed):
    """4000 draws of the same row; frequencies against products of probabilities."""
    num_draws = 4000
    one = Language(2, 1)
    language = Language(2, 1)
    language.first = np.repeat(one.first, num_draws, axis=0)
    language.by_word = np.repeat(one.by_word, num_draws, axis=0)
    tokens, _ = decode(language, rows=num_draws, **choices)
    drawn = [tuple(t) for t in tokens[:, 0].tolist()]
    for words in one.sequences():
        probability = 1.0
        for i, word in enumerate(words):
            p = np.exp(one.log_probs(0, words[:i]) / choices["temperature"])
            p = np.where(allowed(p / p.sum()), p, 0)
            probability *= (p / p.sum())[word]
        frequency = drawn.count(tuple(padded(words))) / num_draws
        spread = np.sqrt(probability * (1 - probability) / num_draws)
        assert abs(frequency - probability) <= 4.5 * spread + 3 / num_draws, words


def _least_of(p, mass):
    """The least probable of the most probable words that together have this mass."""
    descending = np.sort(p)[::-1]
    return descending[np.searchsorted(np.cumsum(descending), mass)]


def test_samples_of_a_row_depend_on_its_key_only():
    language, keys = Language(3, ROWS), jax.random.split(jax.random.key(7), ROWS)
    together, _ = decode(language, keys=keys, temperature=1.0)
    alone = Language(3, ROWS)
    alone.first, alone.by_word = language.first[4:5], language.by_word[4:5]
    single, _ = decode(alone, rows=1, keys=keys[4:5], temperature=1.0)
    np.testing.assert_array_equal(single[0], together[4])


@pytest.mark.parametrize(
    "probabilities, top_k, top_p, kept",
    [
        ([0.1, 0.5, 0.15, 0.25], None, None, [0, 1, 2, 3]),
        ([0.1, 0.5, 0.15, 0.25], 9, 1.0, [0, 1, 2, 3]),
        ([0.1, 0.5, 0.15, 0.25], 2, None, [1, 3]),
        ([0.1, 0.5, 0.15, 0.25], None, 0.7, [1, 3]),
        ([0.1, 0.5, 0.15, 0.25], None, 0.8, [1, 2, 3]),
        ([0.1, 0.5, 0.15, 0.25], None, 0.1, [1]),
        ([0.1, 0.5, 0.15, 0.25], 3, 0.8, [1, 3]),  # of the three, 5/9 and 2.5/9 and 1.5/9
        # Of equally probable words the first are kept.
        ([0.1, 0.3, 0.1, 0.4, 0.1], 3, None, [0, 1, 3]),
        ([0.1, 0.3, 0.1, 0.4, 0.1], None, 0.75, [0, 1, 3]),
        ([0.2, 0.2, 0.2, 0.2, 0.2], 4, 0.6, [0, 1, 2]),  # of the four, each has 1/4
    ],
)
def test_truncated_logits_by_hand(probabilities, top_k, top_p, kept):
    logits = jnp.log(jnp.array(probabilities))
    truncated = truncate_logits(logits, top_k, top_p)
    assert np.flatnonzero(np.isfinite(truncated)).tolist() == kept
    np.testing.assert_array_equal(truncated[np.array(kept)], logits[np.array(kept)])
