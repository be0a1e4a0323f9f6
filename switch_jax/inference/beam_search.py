"""Beam search: the most probable sequences of each row."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.inference.sampling import Decoded, DecodeStep


class _BeamState(NamedTuple):
    """The state of the loop, with n beams in each row.

    Attributes:
      position: scalar int32, tokens decoded so far.
      live_tokens, finished_tokens: [B, n, L] int32, the unfinished sequences, and the best finished
        ones, best first.
      live_log_probs, finished_scores: [B, n] float32; -inf for an empty place.
      done: [B] bool, no unfinished sequence can still become one of the best n.
    """

    position: jax.Array
    live_tokens: jax.Array
    live_log_probs: jax.Array
    finished_tokens: jax.Array
    finished_scores: jax.Array
    done: jax.Array
    cache: Any


def beam_search(
    step: DecodeStep,
    reorder: Callable[[Any, jax.Array], Any],
    cache: Any,
    valid: jax.Array,
    *,
    first: jax.Array | None = None,
    num_beams: int,
    max_new_tokens: int,
    eos_id: int,
    length_penalty: float,
) -> Decoded:
    """Decodes until the n best sequences of every row are final.

    Args:
      reorder: from a cache and beam indices [B, n] to the cache in which beam i continues the
        former beam indices[i].
      step, cache, valid, first, eos_id: as for `sample`, with n beams.
      num_beams: n, the sequences kept for each row.
      max_new_tokens: L, the longest sequence; one of this length is finished even without EOS.
      length_penalty: alpha >= 0; a sequence of m tokens has the score log p / ((5 + m) / 6)^alpha
        (Wu et al. 2016, Eq. 14; T5 uses 0.6 for summarisation and translation).

    Returns n sequences for each row; the score is -inf for those that were not found.
    """

    def penalty(num_tokens: jax.Array | int) -> jax.Array:
        return ((5.0 + num_tokens) / 6.0) ** length_penalty

    def should_continue(state: _BeamState) -> jax.Array:
        return (state.position < max_new_tokens) & ~state.done.all()

    def body(state: _BeamState) -> _BeamState:
        position = state.position
        last = lax.dynamic_index_in_dim(state.live_tokens, position - 1, axis=2, keepdims=False)
        last = jnp.where(position == 0, before, last)  # [B, n]
        active = jnp.isfinite(state.live_log_probs) & ~state.done[:, None]
        logits, cache = step(last, active, position, state.cache)  # [B, n, V]
        log_probs = state.live_log_probs[..., None] + jax.nn.log_softmax(logits)
        log_probs = jnp.where(active[..., None], log_probs, -jnp.inf)
        vocab_size = log_probs.shape[-1]
        # Each beam has one extension that is EOS: of the best 2 n at least n are unfinished.
        log_probs, index = lax.top_k(log_probs.reshape(batch, -1), 2 * num_beams)  # [B, 2 n]
        beam, token = index // vocab_size, (index % vocab_size).astype(jnp.int32)
        tokens = jnp.take_along_axis(state.live_tokens, beam[..., None], axis=1)  # [B, 2 n, L]
        tokens = lax.dynamic_update_slice_in_dim(tokens, token[..., None], position, axis=2)

        is_finished = (token == eos_id) | (position == max_new_tokens - 1)
        new_scores = jnp.where(is_finished, log_probs / penalty(position + 1), -jnp.inf)
        scores = jnp.concatenate([state.finished_scores, new_scores], axis=1)  # [B, 3 n]
        scores, best = lax.top_k(scores, num_beams)
        finished = jnp.concatenate([state.finished_tokens, tokens], axis=1)
        finished = jnp.take_along_axis(finished, best[..., None], axis=1)

        log_probs, best = lax.top_k(jnp.where(is_finished, -jnp.inf, log_probs), num_beams)
        beam = jnp.take_along_axis(beam, best, axis=1)
        # More tokens only lower a sequence's probability, and L tokens have the largest penalty.
        done = scores[:, -1] >= log_probs[:, 0] / penalty(max_new_tokens)
        was_done = state.done[:, None]
        return _BeamState(
            position=position + 1,
            live_tokens=jnp.take_along_axis(tokens, best[..., None], axis=1),
            live_log_probs=log_probs,
            finished_tokens=jnp.where(was_done[..., None], state.finished_tokens, finished),
            finished_scores=jnp.where(was_done, state.finished_scores, scores),
            done=state.done | done,
            cache=reorder(cache, beam),
        )

    batch, before = len(valid), 0 if first is None else first[:, None]
    no_tokens = jnp.zeros((batch, num_beams, max_new_tokens), jnp.int32)
    no_scores = jnp.full((batch, num_beams), -jnp.inf)
    state = _BeamState(
        position=jnp.int32(0),
        live_tokens=no_tokens,
        live_log_probs=no_scores.at[:, 0].set(0.0),
        finished_tokens=no_tokens,
        finished_scores=no_scores,
        done=~valid,
        cache=cache,
    )
    state = lax.while_loop(should_continue, body, state)
    return Decoded(state.finished_tokens, state.finished_scores)
