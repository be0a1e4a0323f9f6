"""The most probable sequences of a row, several at a time."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.inference.sampling import Decoded, Step


class _Search(NamedTuple):
    """n beams a row.

    Attributes:
      position: tokens so far.
      tokens: [B, n, L], the sequences that go on; log_probs: [B, n], -inf where there is none.
      ended: [B, n, L], the best sequences that have ended; scores: [B, n], falling.
      done: [B] bool, no sequence that goes on can come in among those that have ended.
      cache: the model's.
    """

    position: jax.Array
    tokens: jax.Array
    log_probs: jax.Array
    ended: jax.Array
    scores: jax.Array
    done: jax.Array
    cache: Any


def beam_search(
    step: Step,
    reorder: Callable[[Any, jax.Array], Any],
    cache: Any,
    valid: jax.Array,
    *,
    beams: int,
    length: int,
    eos: int,
    length_penalty: float,
) -> Decoded:
    """Decodes until no sequence can come in among each row's best any more.

    Args:
      step: the model.
      reorder: from a cache and beam numbers [B, n] to the cache in which beam i goes on where beam
        numbers[i] was.
      cache: its first cache.
      valid: [B] bool, False for a row that is padding: it gets no token.
      beams: n, sequences that are kept.
      length: L, most tokens of a sequence; one that is as long ends without EOS.
      eos: id that ends one.
      length_penalty: alpha >= 0; a sequence of m tokens has the score log p / ((5 + m) / 6)^alpha
        (Wu et al. 2016, Eq. 14; T5 takes 0.6 for summaries and translation).

    Returns:
      n sequences a row; one that was not found has the score -inf.
    """

    def penalty(tokens: jax.Array | int) -> jax.Array:
        return ((5.0 + tokens) / 6.0) ** length_penalty

    def goes_on(search: _Search) -> jax.Array:
        return (search.position < length) & ~search.done.all()

    def body(search: _Search) -> _Search:
        position = search.position
        last = lax.dynamic_index_in_dim(search.tokens, position - 1, axis=2, keepdims=False)
        last = jnp.where(position == 0, 0, last)
        computed = jnp.isfinite(search.log_probs) & ~search.done[:, None]
        logits, cache = step(last, computed, position, search.cache)
        log_probs = search.log_probs[..., None] + jax.nn.log_softmax(logits)
        log_probs = jnp.where(computed[..., None], log_probs, -jnp.inf)
        vocabulary = log_probs.shape[-1]
        # Of twice as many at least n do not end: a beam has one way to end.
        log_probs, index = lax.top_k(log_probs.reshape(len(valid), -1), 2 * beams)
        source, token = index // vocabulary, (index % vocabulary).astype(jnp.int32)
        tokens = jnp.take_along_axis(search.tokens, source[..., None], axis=1)
        tokens = lax.dynamic_update_slice_in_dim(tokens, token[..., None], position, axis=2)

        ends = (token == eos) | (position == length - 1)
        found = jnp.where(ends, log_probs / penalty(position + 1), -jnp.inf)
        scores, best = lax.top_k(jnp.concatenate([search.scores, found], axis=1), beams)
        ended = jnp.concatenate([search.ended, tokens], axis=1)
        ended = jnp.take_along_axis(ended, best[..., None], axis=1)

        log_probs, best = lax.top_k(jnp.where(ends, -jnp.inf, log_probs), beams)
        source = jnp.take_along_axis(source, best, axis=1)
        # A sequence only gets less probable, and no penalty is larger than that of L tokens.
        done = scores[:, -1] >= log_probs[:, 0] / penalty(length)
        was_done = search.done[:, None]
        return _Search(
            position=position + 1,
            tokens=jnp.take_along_axis(tokens, best[..., None], axis=1),
            log_probs=log_probs,
            ended=jnp.where(was_done[..., None], search.ended, ended),
            scores=jnp.where(was_done, search.scores, scores),
            done=search.done | done,
            cache=reorder(cache, source),
        )

    batch = len(valid)
    empty, none = jnp.zeros((batch, beams, length), jnp.int32), jnp.full((batch, beams), -jnp.inf)
    search = _Search(
        position=jnp.int32(0), tokens=empty, log_probs=none.at[:, 0].set(0.0),
        ended=empty, scores=none, done=~valid, cache=cache,
    )  # fmt: skip
    search = lax.while_loop(goes_on, body, search)
    return Decoded(search.ended, search.scores)
