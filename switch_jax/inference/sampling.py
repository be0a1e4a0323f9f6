"""Greedy decoding and sampling: one sequence for each row."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# One step of a decoder. It takes the last tokens [B, n] int32, which of the n beams are active
# [B, n] bool, the position of the new token (scalar int32) and the cache; it returns the logits
# [B, n, V] float32 of the new token and the new cache.
DecodeStep = Callable[[jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


class Decoded(NamedTuple):
    """Sequences, best first: tokens [B, n, L] int32, 0 after EOS; scores [B, n] float32.

    Without EOS, L tokens were too few. A score is the log-probability of the tokens including EOS;
    a beam search divides it by its length penalty.
    """

    tokens: jax.Array
    scores: jax.Array


class _SampleState(NamedTuple):
    """The state of the loop after `position` tokens: last [B], tokens [B, L] int32, scores [B].

    `done` [B] bool: the row has its EOS, or is padding.
    """

    position: jax.Array
    last: jax.Array
    tokens: jax.Array
    scores: jax.Array
    done: jax.Array
    cache: Any


def sample(
    step: DecodeStep,
    cache: Any,
    valid: jax.Array,
    keys: jax.Array,
    *,
    first: jax.Array | None = None,
    max_new_tokens: int,
    eos_id: int,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Decoded:
    """Decodes until every row has its EOS or L tokens.

    Args:
      step: one step of the decoder, with one beam.
      cache: the initial cache.
      valid: [B] bool, False for rows of padding, which get no tokens.
      keys: [B] random keys; a row's draws depend on its key only.
      first: [B] int32, the token before the first new one, the last of a prompt; None: 0.
      max_new_tokens: L, the longest sequence.
      temperature: 0 takes the most probable token; otherwise logits are divided by it.
      top_k, top_p: see `truncate_logits`.

    Returns one sequence a row (n = 1). Scores are of the model, without temperature, top_k and
    top_p.
    """

    def choose(logits: jax.Array, position: jax.Array) -> jax.Array:
        """[B, V] -> [B] int32."""
        if temperature == 0:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        logits = truncate_logits(logits / temperature, top_k, top_p)
        step_keys = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
        return jax.vmap(jax.random.categorical)(step_keys, logits).astype(jnp.int32)

    def should_continue(state: _SampleState) -> jax.Array:
        return (state.position < max_new_tokens) & ~state.done.all()

    def body(state: _SampleState) -> _SampleState:
        position, done = state.position, state.done
        logits, cache = step(state.last[:, None], ~done[:, None], position, state.cache)
        logits = logits[:, 0]  # [B, 1, V] -> [B, V]
        token = jnp.where(done, 0, choose(logits, position))
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), token[:, None], axis=1)[:, 0]
        return _SampleState(
            position=position + 1,
            last=token,
            tokens=lax.dynamic_update_slice_in_dim(state.tokens, token[:, None], position, axis=1),
            scores=state.scores + jnp.where(done, 0.0, log_probs),
            done=done | (token == eos_id),
            cache=cache,
        )

    batch = len(valid)
    state = _SampleState(
        position=jnp.int32(0),
        last=jnp.full(batch, 0 if first is None else first, jnp.int32),
        tokens=jnp.zeros((batch, max_new_tokens), jnp.int32),
        scores=jnp.zeros(batch),
        done=~valid,
        cache=cache,
    )
    state = lax.while_loop(should_continue, body, state)
    return Decoded(state.tokens[:, None], state.scores[:, None])


def truncate_logits(logits: jax.Array, top_k: int | None, top_p: float | None) -> jax.Array:
    """Sets the logits, [..., V] float32, of all but the most probable tokens to -inf.

    `top_k` keeps the k most probable tokens; `top_p` keeps, of those, the fewest whose
    probabilities add up to at least p (nucleus sampling, Holtzman et al. 2020); None keeps all. Of
    equally probable tokens the lowest ids are kept, as in `jax.lax.top_k`.
    """
    if top_k is not None:
        count = min(top_k, logits.shape[-1])
        threshold = lax.top_k(logits, count)[0][..., -1:]
        logits = _keep_first(logits, threshold, count)
    if top_p is not None:
        descending = -jnp.sort(-logits, axis=-1)
        probs = jax.nn.softmax(descending, axis=-1)
        in_nucleus = jnp.cumsum(probs, axis=-1) - probs < top_p
        threshold = jnp.min(jnp.where(in_nucleus, descending, jnp.inf), axis=-1, keepdims=True)
        logits = _keep_first(logits, threshold, in_nucleus.sum(-1, keepdims=True))
    return logits


def _keep_first(logits: jax.Array, threshold: jax.Array, count: jax.Array | int) -> jax.Array:
    """Keeps `count` logits: those above `threshold` [..., 1], then the first equal to it."""
    above, tied = logits > threshold, logits == threshold
    num_tied = count - above.sum(-1, keepdims=True)
    return jnp.where(above | (tied & (jnp.cumsum(tied, axis=-1) <= num_tied)), logits, -jnp.inf)
