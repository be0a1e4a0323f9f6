"""Kernels on this machine's devices against the plain way of computing the same.

Each process looks at its own devices, and waits for no other.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from switch_jax.config import ModelConfig
from switch_jax.doctor.checks import Check, Finding, Verdict, first_line
from switch_jax.doctor.compare import difference, judged, mesh_of
from switch_jax.doctor.steps import config_of
from switch_jax.kernels.tiles import round_up_to_lanes
from switch_jax.model.dot_product_attention import dot_product_attention
from switch_jax.model.fused_attention import fused_kernel, on_mesh
from switch_jax.moe import assign, assign_choices
from switch_jax.moe.choices import top_choices

# Relative to the largest number: float32 and bfloat16 have 24 and 8 bits, and sums round further.
TOLERANCES = {"float32": 2e-4, "bfloat16": 2e-2}
ROUTING_TOLERANCE = 1e-5  # in float32; who goes where is exact
ADVICE = (
    "this kernel computes wrong numbers here: report it with this output, and do not train on "
    "this machine with these versions"
)
ADVICE_ON_CUDNN = "leave GPU_ATTENTION at 'xla' on these GPUs, and report this output"
_ROWS = 2  # of each device

Attend = Callable[..., jax.Array]


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


CASES = (  # lengths that divide into blocks of 128, and some that do not
    AttentionCase("encoder", 512, 512, causal=False, has_bias=True),
    AttentionCase("decoder", 114, 114, causal=True, has_bias=True),
    AttentionCase("cross-attention", 114, 512, causal=False, has_bias=False),
)


class Arguments(NamedTuple):
    """Of `attention_program`; NumPy arrays.

    Attributes:
      arrays: q [B, L, H * K], k and v [B, M, H * K], and where there is one the bias [H, 2 W].
      segments: [B, L] and [B, M] int32: three packed examples and padding in each row.
    """

    arrays: tuple[Any, ...]
    segments: tuple[Any, Any]


def kernel_checks(mesh: Mesh) -> Iterator[Check]:
    """Attention in each dtype for which these devices have a kernel, and routing."""
    model = dataclasses.replace(config_of(mesh, "float32").model, gpu_attention="cudnn")
    own = mesh_of(mesh.local_devices)
    found = [
        (case, dtype, kernel)
        for case in CASES
        for dtype in TOLERANCES
        if (kernel := kernel_of(model, case, dtype, own)) is not None
    ]
    for case, dtype, kernel in found:
        name = f"attention, {case.name}, {dtype}"
        yield Check(name, functools.partial(_attention, model, case, dtype, kernel, own))
    if not found:
        none = "these devices have no kernel for it, and XLA's attention is used"
        yield Check("attention", lambda: Finding(Verdict.SKIPPED, none))
    yield Check("routing and its gradient", functools.partial(_routing, mesh))


def kernel_of(model: ModelConfig, case: AttentionCase, dtype: str, mesh: Mesh) -> Attend | None:
    """The kernel that the model takes on the mesh, which each device runs for its rows."""
    inner, rows = model.num_heads * model.head_dim, _ROWS * mesh.size
    q: Any
    k: Any
    q, k = (
        jax.ShapeDtypeStruct((rows, length, inner), jnp.dtype(dtype))
        for length in (case.length, case.memory)
    )
    model = dataclasses.replace(model, activation_dtype=dtype)
    with jax.set_mesh(mesh):
        return fused_kernel(model, q, k, case.has_bias)


def arguments_of(
    model: ModelConfig, case: AttentionCase, dtype: str, devices: int, rows_of_device: int = _ROWS
) -> Arguments:
    """Random arrays, the same at each call."""
    rng, heads = np.random.default_rng(case.length), model.num_heads
    rows, inner = rows_of_device * devices, heads * model.head_dim

    def normal(*shape: int) -> np.ndarray:
        return rng.normal(size=shape).astype(jnp.dtype(dtype))

    def packed(length: int) -> np.ndarray:
        return np.sort(rng.integers(0, 4, (rows, length)))[:, ::-1].astype(np.int32)

    q = normal(rows, case.length, inner) * np.asarray(model.head_dim**-0.5, jnp.dtype(dtype))
    arrays = [q, normal(rows, case.memory, inner), normal(rows, case.memory, inner)]
    if case.has_bias:
        width = round_up_to_lanes(max(case.length, case.memory))
        arrays.append(rng.normal(size=(heads, 2 * width)).astype(np.float32))
    segments = packed(case.length)
    memory = segments if case.length == case.memory else packed(case.memory)
    return Arguments(tuple(arrays), (segments, memory))


def attention_program(attend: Attend, num_heads: int, causal: bool) -> Callable[..., Any]:
    """A function of `Arguments`, as two: the result and the gradients of its arrays."""

    def results(arrays: tuple[jax.Array, ...], segments: tuple[jax.Array, jax.Array]) -> Any:
        def of(q: jax.Array, k: jax.Array, v: jax.Array, bias: jax.Array | None = None):
            return attend(q, k, v, bias, *segments, num_heads=num_heads, causal=causal)

        y, pullback = jax.vjp(of, *arrays)
        cotangent = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        return y, *pullback(cotangent.astype(y.dtype))

    return results


def routing_program(route: Callable[[jax.Array], Any]) -> Callable[..., Any]:
    """A function of logits [G, S, E] and weights of the gates [G, 1, S].

    It returns gates, normalizers and the gradient by the logits, and apart from these who goes
    where.
    """

    def results(logits: jax.Array, weights: jax.Array) -> Any:
        def loss(logits: jax.Array) -> Any:
            a = route(logits)
            balance = jnp.sum(a.router.importance**2) / logits.shape[1]
            return jnp.sum(a.gate * weights) + balance, a

        (_, a), gradient = jax.value_and_grad(loss, has_aux=True)(logits)
        return (a.gate, a.router.log_normalizer, gradient), (a.expert_index, a.token_index, a.load)

    return results


def _attention(
    model: ModelConfig, case: AttentionCase, dtype: str, kernel: Attend, mesh: Mesh
) -> Finding:
    """Forward and backward pass of the kernel, on packed rows with padding."""
    on_gpus = mesh.devices.flat[0].platform == "gpu"
    arrays, segments = arguments_of(model, case, dtype, mesh.size)

    def run(attend: Attend, arrays: Any) -> Any:
        program = attention_program(attend, model.num_heads, case.causal)
        return jax.device_get(jax.jit(program)(arrays, segments))

    with jax.set_mesh(mesh):
        try:
            found = run(on_mesh(kernel), arrays)
        except jax.errors.JaxRuntimeError as error:
            if not on_gpus:
                raise
            text = f"cuDNN has none for these GPUs: {first_line(error)}"
            return Finding(Verdict.SKIPPED, text)
        with jax.default_matmul_precision("highest"):
            in_float32 = tuple(array.astype(np.float32) for array in arrays)
            expected = run(dot_product_attention, in_float32)
    against = "XLA's attention in float32"
    advice = ADVICE_ON_CUDNN if on_gpus else ADVICE
    return judged(difference(found, expected), TOLERANCES[dtype], against=against, advice=advice)


def _routing(mesh: Mesh) -> Finding:
    """The way of the default, a kernel on TPUs, against that of other routing rules."""
    groups, tokens, experts, capacity = 2, 1024, 16, 80
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(groups, tokens, experts)).astype(np.float32)
    valid = jnp.asarray(rng.random((groups, tokens)) < 0.9)
    weights = rng.normal(size=(groups, 1, tokens)).astype(np.float32)

    def run(route: Callable[[jax.Array], Any]) -> Any:
        return jax.device_get(jax.jit(routing_program(route))(logits, weights))

    with jax.set_mesh(mesh_of(mesh.local_devices[:1])):
        found = run(lambda x: assign(x, capacity, valid))
        plain = run(lambda x: assign_choices(top_choices(x, 1), x, capacity, valid))
    worst = difference(found[0], plain[0])
    if difference(found[1], plain[1]) > 0:
        worst = float("inf")
    against = "sorting in XLA's operations"
    return judged(worst, ROUTING_TOLERANCE, against=against, advice=ADVICE)
