"""Compares kernels on this process's devices with XLA's own operations."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from switch_jax.doctor.checks import Failed, Skipped, check_close, data_mesh, difference
from switch_jax.doctor.step_checks import HEADS, small_config
from switch_jax.kernels.tiles import round_up_to_lanes
from switch_jax.model.dot_product_attention import dot_product_attention
from switch_jax.model.fused_attention import fused_kernel, on_mesh
from switch_jax.moe import Distribution, assign, assign_choices
from switch_jax.moe.tokens_choose import top_choices

# Relative to the largest number: float32 has 24 bits, bfloat16 8, and sums round further.
TOLERANCES = {"float32": 2e-4, "bfloat16": 2e-2}

Attend = Callable[..., jax.Array]


class Case(NamedTuple):
    """Queries and keys of a row, multiples of 128 or not; causal; with a bias; heads of keys."""

    length: int
    memory: int
    causal: bool
    has_bias: bool
    key_value_heads: int = HEADS


CASES = {
    "self-attention": Case(512, 512, False, True),
    "causal self-attention": Case(114, 114, True, True),
    "cross-attention": Case(114, 512, False, False),
    "long causal self-attention with grouped heads": Case(1024, 1024, True, False, HEADS // 4),
}


def attention(mesh: Mesh, dtype: str) -> str:
    """Compares each attention kernel of a dtype, forward and backward, with XLA in float32."""
    local, found = data_mesh(mesh.local_devices), []
    for name, case in CASES.items():
        causal = case.causal
        kernel, (arrays, segments) = attention_inputs(case, dtype, local)
        if kernel is None:
            continue
        with jax.set_mesh(local), jax.default_matmul_precision("highest"):
            program = attention_program(dot_product_attention, causal)
            plain = jax.jit(program)([x.astype(np.float32) for x in arrays], segments)
        with jax.set_mesh(local):
            result = jax.jit(attention_program(on_mesh(kernel), causal))(arrays, segments)
        found.append(check_close(result, plain, TOLERANCES[dtype], "XLA's in float32", name))
    if not found:
        raise Skipped("these devices have no kernel for it; attention is XLA's")
    return "; ".join(found)


def attention_inputs(case: Case, dtype: str, mesh: Mesh) -> tuple[Attend | None, Any]:
    """Returns the kernel that a model uses on the mesh, and arguments of `attention_program`.

    The arguments are random arrays, the same at each call: q [B, L, H * K], k and v [B, M, H * K]
    with the case's heads, and with `has_bias` the bias [H, 2 W]; then segments [B, L] and [B, M]
    int32: three packed examples and padding in each row.
    """
    model = small_config(mesh).replace("model", activation_dtype=dtype, gpu_attention="cudnn").model
    length, memory, _, has_bias, key_value_heads = case
    rng, rows = np.random.default_rng(length), 2 * mesh.size

    def normal(length: int, heads: int, scale: float = 1.0) -> np.ndarray:
        x = scale * rng.normal(size=(rows, length, heads * model.head_dim))
        return x.astype(jnp.dtype(dtype))

    def packed(length: int) -> np.ndarray:
        return np.sort(rng.integers(0, 4, (rows, length)))[:, ::-1].astype(np.int32)

    q = normal(length, HEADS, model.head_dim**-0.5)
    k, v = (normal(memory, key_value_heads) for _ in range(2))
    arrays, segments = [q, k, v], packed(length)
    if has_bias:
        width = round_up_to_lanes(max(length, memory))
        arrays.append(rng.normal(size=(HEADS, 2 * width)).astype(np.float32))
    with jax.set_mesh(mesh):
        kernel: Any = fused_kernel(model, q, k, has_bias)  # type: ignore[arg-type]
    return kernel, (arrays, (segments, segments if length == memory else packed(memory)))


def attention_program(attend: Attend, causal: bool) -> Callable[..., Any]:
    """Makes a function from `attention_inputs` to the output and the gradients of the arrays."""

    def results(arrays: list[jax.Array], segments: tuple[jax.Array, jax.Array]) -> Any:
        def output(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None = None):
            y = attend(q, k, v, bias, *segments, num_heads=HEADS, causal=causal)
            # What padding gets of a long causal row is not the same in all implementations.
            return jnp.where(segments[0][..., None] > 0, y, 0) if causal else y

        y, pullback = jax.vjp(output, *arrays)
        cotangent = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        return y, *pullback(cotangent.astype(y.dtype))

    return results


def routing(mesh: Mesh) -> str:
    """Compares the default top-1 routing, a kernel on TPUs, with that by sorting."""
    groups, tokens, experts, capacity = 2, 1024, 16, 80
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(groups, tokens, experts)).astype(np.float32)
    valid = jnp.asarray(rng.random((groups, tokens)) < 0.9)
    weights = rng.normal(size=(groups, 1, tokens)).astype(np.float32)  # of the gates

    def by_sorting(logits: jax.Array) -> Any:
        choices, distribution = top_choices(logits, 1), Distribution.of(logits)
        return assign_choices(choices, distribution.gates(choices), distribution, capacity, valid)

    def run(route: Callable[[jax.Array], Any]) -> Any:
        def loss(logits: jax.Array) -> Any:
            a = route(logits)
            balance = jnp.sum(a.router.importance**2) / tokens
            slots = a.expert_index, a.token_index, a.load
            return jnp.sum(a.gate * weights) + balance, (a.gate, a.router.log_normalizer, slots)

        (_, (*values, slots)), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(logits)
        return (*values, gradient), slots

    with jax.set_mesh(data_mesh(mesh.local_devices[:1])):
        found, slots = run(lambda x: assign(x, capacity, valid))
        plain, expected = run(by_sorting)
    if difference(slots, expected):
        raise Failed("tokens go to other experts or slots than by sorting in XLA's operations")
    return check_close(found, plain, 1e-5, "sorting in XLA's operations")
