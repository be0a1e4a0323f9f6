"""A language of five words, small enough to list all its sequences."""

import itertools

import jax.numpy as jnp
import numpy as np

WORDS, LENGTH, EOS = 5, 4, 1


class Language:
    """The next word depends on all earlier words, by random logits."""

    def __init__(self, seed, rows):
        rng = np.random.default_rng(seed)
        self.first = rng.normal(size=(rows, WORDS)) * 1.5
        self.by_word = rng.normal(size=(rows, LENGTH, WORDS, WORDS)) * 1.5

    def logits(self, row, words):
        """[V], of the word after these."""
        return self.first[row] + sum(self.by_word[row, i, w] for i, w in enumerate(words))

    def log_probs(self, row, words):
        logits = self.logits(row, words)
        return logits - np.log(np.exp(logits).sum())

    def log_prob(self, row, words):
        """Returns the log-probability of a whole sequence of words."""
        return sum(self.log_probs(row, words[:i])[w] for i, w in enumerate(words))

    def sequences(self):
        """All sequences that end with EOS or have the greatest length."""
        others = [w for w in range(WORDS) if w != EOS]
        for length in range(1, LENGTH + 1):
            for start in itertools.product(others, repeat=length - 1):
                last = range(WORDS) if length == LENGTH else [EOS]
                yield from ((*start, w) for w in last)

    def start(self, rows, beams):
        """The initial cache: the sum of the earlier words' logits, [B, beams, V]."""
        return jnp.zeros((rows, beams, WORDS))

    def step(self, tokens, active, position, cache):
        """A `DecodeStep`; the logits of beams that are not active are NaN."""
        rows = jnp.arange(tokens.shape[0])[:, None]
        by_word = jnp.asarray(self.by_word)[rows, position - 1, tokens]
        cache = cache + jnp.where(position > 0, by_word, 0.0)
        logits = jnp.asarray(self.first)[:, None] + cache
        return jnp.where(active[..., None], logits, jnp.nan), cache

    @staticmethod
    def reorder(cache, beams):
        return jnp.take_along_axis(cache, beams[..., None], axis=1)


def padded(words):
    """The words, then zeros."""
    return [*words, *[0] * (LENGTH - len(words))]
