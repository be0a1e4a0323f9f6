"""Kernels on this machine's devices against the plain way of computing the same."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from switch_jax.config import ModelConfig
from switch_jax.doctor.checks import Check, Finding, Verdict
from switch_jax.doctor.compare import difference, judged
from switch_jax.doctor.steps import config_of
from switch_jax.model.dot_product_attention import dot_product_attention
from switch_jax.model.fused_attention import fused_kernel, on_mesh
from switch_jax.moe import assign, assign_choices
from switch_jax.moe.choices import top_choices
from switch_jax.partitioning.mesh import batch_shards, current_mesh

# Relative to the largest number: float32 and bfloat16 have 24 and 8 bits, and sums round further.
TOLERANCES = {"float32": 2e-4, "bfloat16": 2e-2}
ADVICE = (
    "this kernel computes wrong numbers here: report it with this output, and do not train on "
    "this machine with these versions"
)


@dataclasses.dataclass(frozen=True)
class AttentionCase:
    """Shapes of an attention.

    Attributes:
      name: in words.
      length, memory: queries and keys of a row.
      causal: as in the decoder.
      has_bias: as in self-attention.
    """

    name: str
    length: int
    memory: int
    causal: bool
    has_bias: bool


CASES = (
    AttentionCase("encoder, packed", 512, 512, causal=False, has_bias=True),
    AttentionCase("decoder, 114 targets", 114, 114, causal=True, has_bias=True),
    AttentionCase("cross-attention", 114, 512, causal=False, has_bias=False),
)


def kernel_checks(mesh: Mesh) -> Iterator[Check]:
    """Attention and routing, in both dtypes; to be run within `jax.set_mesh`."""
    model = config_of(mesh, "float32").model
    for dtype in TOLERANCES:
        for case in CASES:
            name = f"attention, {case.name}, {dtype}"
            yield Check(name, functools.partial(_attention, name, model, case, dtype))
    yield Check("routing and its gradient", _routing)


def _attention(name: str, model: ModelConfig, case: AttentionCase, dtype: str) -> Finding:
    """Forward and backward pass of the device's kernel, on packed rows with padding."""
    model = dataclasses.replace(model, activation_dtype=dtype)
    batch, inner = 2 * batch_shards(current_mesh().shape), model.num_heads * model.head_dim
    rng = np.random.default_rng(case.length)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), dtype)

    q = normal(batch, case.length, inner) * model.head_dim**-0.5
    k, v = normal(batch, case.memory, inner), normal(batch, case.memory, inner)
    width = -(-max(case.length, case.memory) // 128) * 128
    bias = jnp.asarray(rng.normal(size=(model.num_heads, 2 * width)), jnp.float32)
    segments = [_packed(rng, batch, length) for length in (case.length, case.memory)]
    if case.length == case.memory:
        segments[1] = segments[0]
    kernel = fused_kernel(model, q, k, case.has_bias)
    if kernel is None:
        return Finding(name, Verdict.SKIPPED, "these devices have no kernel for it")
    options: dict[str, Any] = {"num_heads": model.num_heads, "causal": case.causal}
    arrays = (q, k, v, bias) if case.has_bias else (q, k, v)

    def results(attend: Callable[..., jax.Array], arrays: Any) -> Any:
        def of(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None = None):
            return attend(q, k, v, bias, *segments, **options)

        y, pullback = jax.vjp(of, *arrays)
        return y, *pullback(
            jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape).astype(y.dtype)
        )

    found = jax.jit(functools.partial(results, on_mesh(kernel)))(arrays)
    in_float32 = jax.tree.map(lambda x: x.astype(jnp.float32), arrays)
    with jax.default_matmul_precision("highest"):
        expected = jax.jit(functools.partial(results, dot_product_attention))(in_float32)
    worst = difference(*jax.device_get((found, expected)))
    return judged(
        name, worst, TOLERANCES[dtype], against="XLA's attention in float32", advice=ADVICE
    )


def _packed(rng: np.random.Generator, batch: int, length: int) -> jax.Array:
    """[B, L] int32 segments: three examples and padding in each row."""
    return jnp.asarray(np.sort(rng.integers(0, 4, (batch, length)))[:, ::-1], jnp.int32)


def _routing() -> Finding:
    """The way of the default, a kernel on TPUs, against that of other routing rules."""
    name, (groups, tokens, experts, capacity) = "routing and its gradient", (2, 1024, 16, 80)
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(groups, tokens, experts)), jnp.float32)
    valid = jnp.asarray(rng.random((groups, tokens)) < 0.9)
    weights = jnp.asarray(rng.normal(size=(groups, 1, tokens)), jnp.float32)

    def results(route: Callable[..., Any]) -> Any:
        def loss(logits: jax.Array) -> Any:
            a = route(logits)
            return jnp.sum(a.gate * weights) + jnp.sum(a.importance**2) / tokens, a

        (_, a), gradient = jax.value_and_grad(loss, has_aux=True)(logits)
        return (a.gate, a.log_normalizer, gradient), (a.expert_index, a.token_index, a.load)

    found = jax.jit(lambda: results(lambda x: assign(x, capacity, valid)))()
    plain = jax.jit(
        lambda: results(lambda x: assign_choices(top_choices(x, 1), x, capacity, valid))
    )()
    found, plain = jax.device_get((found, plain))
    worst = difference(found[0], plain[0])
    if difference(found[1], plain[1]) > 0:  # who goes where is exact
        worst = float("inf")
    return judged(name, worst, 1e-5, against="sorting in XLA's operations", advice=ADVICE)
