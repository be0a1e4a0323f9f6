"""One sequence a row, token by token: the most probable, or one drawn."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# From the last tokens [B, beams], which beams go on [B, beams], the number of tokens before the
# last, and a cache, to the next tokens' logits [B, beams, V] float32 and the cache after that.
Step = Callable[[jax.Array, jax.Array, jax.Array, Any], tuple[jax.Array, Any]]


class Decoded(NamedTuple):
    """Sequences, the best first.

    Attributes:
      tokens: [B, n, L] int32 with EOS at the end, 0 after it; without EOS where L was too short.
      scores: [B, n] float32, log-probability of the tokens, EOS included; of a beam search divided
        by its length penalty.
    """

    tokens: jax.Array
    scores: jax.Array


def sample(
    step: Step,
    cache: Any,
    valid: jax.Array,
    keys: jax.Array,
    *,
    length: int,
    eos: int,
    temperature: float,
    top_k: int | None = None,
    top_p: float | None = None,
) -> Decoded:
    """Decodes until every row has ended.

    Args:
      step: the model.
      cache: its first cache.
      valid: [B] bool, False for a row that is padding: it gets no token.
      keys: [B] random keys; what is drawn for a row depends on nothing else.
      length: L, most tokens of a sequence.
      eos: id that ends one.
      temperature: 0 takes the most probable token; else logits are divided by it.
      top_k, top_p: see `keep_likely`.

    Returns:
      n = 1. The scores are of the model's own distribution: temperature and limits left out.
    """

    def choose(logits: jax.Array, position: jax.Array) -> jax.Array:
        if temperature == 0:
            return jnp.argmax(logits, axis=-1).astype(jnp.int32)
        likely = keep_likely(logits / temperature, top_k, top_p)
        keys_here = jax.vmap(jax.random.fold_in, (0, None))(keys, position)
        return jax.vmap(jax.random.categorical)(keys_here, likely).astype(jnp.int32)

    def goes_on(state: Any) -> jax.Array:
        position, _, _, _, done, _ = state
        return (position < length) & ~done.all()

    def body(state: Any) -> Any:
        position, last, tokens, scores, done, cache = state
        logits, cache = step(last[:, None], ~done[:, None], position, cache)
        token = jnp.where(done, 0, choose(logits[:, 0], position))
        log_probs = jax.nn.log_softmax(logits[:, 0])
        chosen = jnp.take_along_axis(log_probs, token[:, None], axis=1)[:, 0]
        scores = scores + jnp.where(done, 0.0, chosen)
        tokens = lax.dynamic_update_slice_in_dim(tokens, token[:, None], position, axis=1)
        return position + 1, token, tokens, scores, done | (token == eos), cache

    batch = len(valid)
    state = (
        jnp.int32(0), jnp.zeros(batch, jnp.int32), jnp.zeros((batch, length), jnp.int32),
        jnp.zeros(batch), ~valid, cache,
    )  # fmt: skip
    _, _, tokens, scores, _, _ = lax.while_loop(goes_on, body, state)
    return Decoded(tokens[:, None], scores[:, None])


def keep_likely(logits: jax.Array, top_k: int | None, top_p: float | None) -> jax.Array:
    """[..., V] -> the same, -inf where a token is not among the likely ones.

    Of tokens that are equally likely those with the lowest ids are kept, as `jax.lax.top_k` does.

    Args:
      logits: [..., V] float32.
      top_k: keeps the k most probable tokens; None = all.
      top_p: then keeps the fewest most probable tokens whose probability adds up to p (nucleus
        sampling); None = all.
    """
    if top_k is not None:
        number = min(top_k, logits.shape[-1])
        least = lax.top_k(logits, number)[0][..., -1:]
        logits = _keep(logits, least, number)
    if top_p is not None:
        descending = -jnp.sort(-logits, axis=-1)
        probs = jax.nn.softmax(descending, axis=-1)
        needed = jnp.cumsum(probs, axis=-1) - probs < top_p
        least = jnp.min(jnp.where(needed, descending, jnp.inf), axis=-1, keepdims=True)
        logits = _keep(logits, least, needed.sum(-1, keepdims=True))
    return logits


def _keep(logits: jax.Array, least: jax.Array, number: jax.Array | int) -> jax.Array:
    """Keeps the tokens above `least` [..., 1], and of those at it the first, `number` in all."""
    above, tied = logits > least, logits == least
    room = number - above.sum(-1, keepdims=True)
    return jnp.where(above | (tied & (jnp.cumsum(tied, axis=-1) <= room)), logits, -jnp.inf)
