"""The router: logits of each token for each expert, and their softmax."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.kernels.by_platform import sum_outer_products
from switch_jax.moe.random_streams import NoiseBits, noise
from switch_jax.partitioning.collectives import psum


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 4, 5))
def router_logits(
    x: jax.Array,
    kernel: jax.Array,
    jitter: float = 0.0,
    bits: NoiseBits | None = None,
    dropout_rate: float = 0.0,
    sum_over: tuple[str, ...] = (),
) -> jax.Array:
    """h(x) = W_r x (Eq. 1), in the dtype of W_r whatever that of x: float32 (section 2.4).

    With a kernel in bfloat16 it is the router that diverges in Table 2. The product has precision
    HIGH, since rounding must not decide which expert a token gets: by default a TPU rounds float32
    operands to bfloat16 and multiplies once; at HIGH it multiplies three times. For the gradients
    the default is enough.

    Args:
      x: [B, L, D].
      kernel: [D, E] float32 or bfloat16, as is the result, [B, L, E].
      jitter: epsilon of the noise uniform(1 - eps, 1 + eps) that x is multiplied by (App. C).
      bits: the random bits of the noise; None = no noise.
      dropout_rate: if above 0, x is multiplied by a dropout mask in place of the jitter (App. C).
      sum_over: mesh axes, within `jax.shard_map`, over which D is split in x, kernel and bits.
    """
    x = _noisy(x, bits, jitter, dropout_rate).astype(kernel.dtype)  # [B, L, D]
    logits = jnp.einsum(
        "bld,de->ble", x, kernel, precision=lax.Precision.HIGH, preferred_element_type=jnp.float32
    )  # [B, L, E]
    return round_to(kernel.dtype, psum(logits, sum_over)).astype(kernel.dtype)


def _router_logits_fwd(x, kernel, jitter, bits, dropout_rate, sum_over):
    return router_logits(x, kernel, jitter, bits, dropout_rate, sum_over), (x, bits, kernel)


def _router_logits_bwd(jitter, dropout_rate, sum_over, residuals, logits_grad):
    del sum_over  # each device has the gradient of the sum
    # Behind a barrier: without it the compiler would keep the float32 copies of x from the forward
    # pass and read them again. Computing them again within the products costs less.
    x, bits, kernel = lax.optimization_barrier(residuals)
    x_grad = jnp.einsum("ble,de->bld", logits_grad, kernel)  # [B, L, D]
    if bits is not None:
        x_grad = x_grad * _factor(bits, jitter, dropout_rate)  # [B, L, D]
    x_noisy = _noisy(x, bits, jitter, dropout_rate).astype(kernel.dtype)  # [B, L, D]
    kernel_grad = sum_outer_products(x_noisy, logits_grad)  # [D, E]
    return x_grad.astype(x.dtype), kernel_grad, None


router_logits.defvjp(_router_logits_fwd, _router_logits_bwd)


def _noisy(x: jax.Array, bits: NoiseBits | None, jitter: float, dropout_rate: float) -> jax.Array:
    x = x.astype(jnp.float32)  # [B, L, D]
    return x if bits is None else x * _factor(bits, jitter, dropout_rate)  # [B, L, D]


def _factor(bits: NoiseBits, jitter: float, dropout_rate: float) -> jax.Array:
    """[B, L, D] float32, by which the router's input is multiplied; 1 on average."""
    if dropout_rate > 0:
        is_dropped = noise(bits) < 2 * dropout_rate - 1  # [B, L, D]
        return jnp.where(is_dropped, 0.0, 1 / (1 - dropout_rate))  # [B, L, D]
    return 1 + jitter * noise(bits)  # [B, L, D]


class RouterSums(NamedTuple):
    """What the losses and statistics need of the router's distribution of each token.

    Attributes:
      log_normalizer: [G, S] float32, logsumexp of the logits.
      entropy: [G, S] float32, in nats; its gradient is 0.
      highest_logit: [G, S] float32; its gradient is 0.
      importance: [G, E] float32, the router's probabilities summed over real tokens.
    """

    log_normalizer: jax.Array
    entropy: jax.Array
    highest_logit: jax.Array
    importance: jax.Array


class Distribution(NamedTuple):
    """The router's softmax over the experts, of each token.

    Each step is rounded to the numbers of the logits' dtype (Table 2), and so is each gradient. The
    default policy, one expert of the highest probability, has a softmax of its own: `top_1`.

    Attributes:
      logits: [..., S, E] float32 or bfloat16.
      log_normalizer: [..., S] float32, logsumexp of the logits.
      log_probs, probs: [..., S, E] float32.
    """

    logits: jax.Array
    log_normalizer: jax.Array
    log_probs: jax.Array
    probs: jax.Array

    @classmethod
    def of(cls, logits: jax.Array) -> "Distribution":
        rounded = functools.partial(round_to, logits.dtype)
        wide = logits.astype(jnp.float32)  # [..., S, E]
        log_normalizer = rounded(jax.nn.logsumexp(wide, axis=-1))  # [..., S]
        log_probs = rounded(wide - log_normalizer[..., None])  # [..., S, E]
        return cls(logits, log_normalizer, log_probs, rounded(jnp.exp(log_probs)))

    def gates(self, choices: jax.Array, normalize: bool = True) -> jax.Array:
        """The gates of chosen experts: [..., k, S] int32 -> [..., k, S] float32; 0 for E = none.

        One expert's gate is its probability (Eq. 2). Those of several are their probabilities
        divided by the sum of these (Shazeer et al. 2017, Eq. 3 to 5; GShard, Algorithm 1), before
        any choice is dropped; or, where `normalize` is False, their probabilities, too.
        """
        is_chosen = choices[..., None] == jnp.arange(self.probs.shape[-1])  # [..., k, S, E]
        probs = jnp.sum(jnp.where(is_chosen, self.probs[..., None, :, :], 0.0), -1)  # [..., k, S]
        if normalize and choices.shape[-2] > 1:
            probs = probs / (probs.sum(-2, keepdims=True) + 1e-9)  # [..., k, S]
        return round_to(self.logits.dtype, probs)

    def sums(self, valid: jax.Array) -> RouterSums:
        """Over the tokens of groups; `valid` is [G, S] bool, False on padding."""
        rounded = functools.partial(round_to, self.logits.dtype)
        entropy = lax.stop_gradient(rounded(-jnp.sum(self.probs * self.log_probs, -1)))  # [G, S]
        logits = lax.stop_gradient(self.logits.astype(jnp.float32))  # [G, S, E]
        importance = rounded(jnp.sum(self.probs * valid[..., None], axis=1))  # [G, E]
        return RouterSums(self.log_normalizer, entropy, logits.max(-1), importance)


def round_to(dtype: jnp.dtype, x: jax.Array) -> jax.Array:
    """x, float32, rounded to the numbers of a dtype; the result is still float32.

    A cast there and back would not do: compilers are free to leave it out, and do.
    """
    if dtype == jnp.float32:
        return x
    numbers = jnp.finfo(dtype)
    return lax.reduce_precision(x, exponent_bits=numbers.nexp, mantissa_bits=numbers.nmant)
