"""Cycles of the attention kernels on TPU, from the schedule of the TPU's own compiler.

    python benchmarks/tpu_attention.py [--topology v5p:2x2x1]

Forward and backward of one call on a chip, bfloat16: the three of a layer of T5-Base with 16 rows
of 512 and 114 tokens, other lengths, and heads of 128. "At least" is what the products take if
matrix units are full, and if causal attention computes half of the pairs. With heads of 64, each
product has one side of 64, half of a unit's.

A second table has causal attention without a bias, as in language models, beside JAX's splash
attention with the same packed rows, its fused backward kernel and the better of two sizes of
blocks. Its schedule counts the blocks above the diagonal, which it branches around, so its cycles
are multiplied by the share of the others. "Around" it the compiler estimates what makes an array of
each head, and sums gradients of blocks; a model may avoid some of that.
"""

import argparse
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu import splash_attention
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.config import MeshConfig
from switch_jax.hardware.tpus import Slice, parse_slice
from switch_jax.kernels.attention_kernel import fused_attention
from switch_jax.partitioning.compiler_options import compiler_options
from switch_jax.partitioning.mesh import BATCH, make_mesh
from switch_jax.planning.compiler import OutOfMemory, compile_program, devices
from switch_jax.utils.errors import UserError

Attend = Callable[..., jax.Array]


class Call(NamedTuple):
    """Rows of a chip, queries, keys, heads and head size; with T5's bias; causal."""

    rows: int
    queries: int
    keys: int
    heads: int
    size: int
    has_bias: bool
    causal: bool


CALLS = {
    "encoder": Call(16, 512, 512, 12, 64, True, False),
    "decoder": Call(16, 114, 114, 12, 64, True, True),
    "cross-attention": Call(16, 114, 512, 12, 64, False, False),
    "256 tokens": Call(16, 256, 256, 12, 64, True, False),
    "2048 tokens": Call(4, 2048, 2048, 12, 64, True, False),
    "heads of 128": Call(8, 512, 512, 32, 128, True, False),
}
# Each with 16,384 tokens of 768 lanes.
LANGUAGE_MODELS = [
    Call(16384 // length, length, length, 768 // size, size, False, True)
    for size in (64, 128)
    for length in (1024, 2048, 4096)
]
SPLASH_BLOCKS = (512, 1024)  # queries, and keys, of a block


def splash(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: None,
    query_segments: jax.Array,
    key_segments: jax.Array,
    *,
    num_heads: int,
    causal: bool,
    block: int,
) -> jax.Array:
    """JAX's splash attention, with the arguments of `fused_attention`: causal, without a bias."""
    assert causal and bias is None
    batch, length, inner = q.shape
    names = ("q", "kv", "kv_compute", "q_dkv", "kv_dkv", "kv_dkv_compute")
    attend = splash_attention.make_splash_mha_single_device(
        splash_attention.MultiHeadMask([splash_attention.CausalMask((length, length))] * num_heads),
        block_sizes=splash_attention.BlockSizes(
            **{f"block_{name}": block for name in names}, use_fused_bwd_kernel=True
        ),
    )
    heads = (x.reshape(batch, length, num_heads, -1).swapaxes(1, 2) for x in (q, k, v))
    segments = splash_attention.SegmentIds(query_segments, key_segments)
    y = jax.vmap(attend)(*heads, segments)  # [B, H, L, K]
    return y.swapaxes(1, 2).reshape(batch, length, inner)


def cycles_of(call: Call, mesh: Mesh, kernel: Attend = fused_attention) -> dict[str, int]:
    """Those of the forward and of the backward kernels, and of what is around them."""
    rows, inner = call.rows * mesh.size, call.heads * call.size
    width = -(-max(call.queries, call.keys) // 128) * 128
    of_rows, whole = PartitionSpec(BATCH), PartitionSpec()

    def abstract(shape, dtype, spec=of_rows):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    q, k = (abstract((rows, n, inner), jnp.bfloat16) for n in (call.queries, call.keys))
    segments = [abstract((rows, n), jnp.int32) for n in (call.queries, call.keys)]
    bias = abstract((call.heads, 2 * width), jnp.float32, whole) if call.has_bias else None
    attend = jax.shard_map(
        functools.partial(kernel, num_heads=call.heads, causal=call.causal),
        mesh=mesh,
        in_specs=(of_rows, of_rows, of_rows, whole, of_rows, of_rows),
        out_specs=of_rows,
        check_vma=False,
    )

    def value_and_gradients(q, k, v, bias, cotangent, *segments):
        value, pullback = jax.vjp(lambda *arrays: attend(*arrays, *segments), q, k, v, bias)
        return value, pullback(cotangent)

    with jax.set_mesh(mesh):
        step = jax.jit(value_and_gradients, compiler_options=compiler_options())
        program = compile_program(step.lower(q, k, k, bias, q, *segments))
    if isinstance(program, OutOfMemory):
        raise MemoryError(program.message)
    around = sum((o.cycles or 0) * o.count for o in program.operations)
    cycles = {"forward": 0, "backward": 0, "around": around}
    for name, count in program.scheduled.items():
        if "attention" in name or "splash" in name:
            cycles["forward" if "forward" in name or "fwd" in name else "backward"] += count
    return cycles


def cycles_of_splash(call: Call, mesh: Mesh, block: int) -> dict[str, float]:
    """The same of splash attention, without the blocks above the diagonal."""
    cycles = cycles_of(call, mesh, functools.partial(splash, block=block))
    blocks = call.queries // block
    share = (blocks + 1) / (2 * blocks)
    return {name: n if name == "around" else share * n for name, n in cycles.items()}


def row(name: str, call: Call, mesh: Mesh, hardware: Slice) -> str:
    """A row of the table."""
    cycles = cycles_of(call, mesh)
    pairs = call.queries * call.keys / (2 if call.causal else 1)
    floor = 2 * call.rows * call.heads * pairs * call.size / hardware.generation.flops_per_cycle
    cells = [
        f"{cycles[kind]:,} | {round(count * floor):,}"
        for kind, count in (("forward", 2), ("backward", 5))
    ]
    return f"| {name} | {sizes(call)} | {' | '.join(cells)} |"


def sizes(call: Call) -> str:
    return f"{call.rows} x {call.queries} x {call.keys}, {call.heads} heads of {call.size}"


def comparison(call: Call, mesh: Mesh) -> str:
    """A row of the second table."""
    ours = cycles_of(call, mesh)
    theirs = min(
        (cycles_of_splash(call, mesh, block) for block in SPLASH_BLOCKS),
        key=lambda cycles: sum(cycles.values()),
    )
    cells = [f"{ours[kind]:,} | {round(theirs[kind]):,}" for kind in ("forward", "backward")]
    kernels, whole = (
        sum(theirs[name] for name in names) / sum(ours[name] for name in names)
        for names in (("forward", "backward"), ours)
    )
    around = round(theirs["around"])
    return f"| {sizes(call)} | {' | '.join(cells)} | {around:,} | {kernels:.2f} | {whole:.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--topology", default="v5p:2x2x1")
    hardware = parse_slice(parser.parse_args().topology)
    mesh = make_mesh(MeshConfig(hardware.devices, 1, 1), devices(hardware))
    print("| call | rows x queries x keys | forward | at least | backward | at least |")
    print("|---|---|---|---|---|---|")
    for name, call in CALLS.items():
        print(row(name, call, mesh, hardware), flush=True)
    columns = ("rows x queries x keys", "forward", "splash", "backward", "splash")
    columns += ("around splash", "ratio of kernels", "with what is around")
    print(f"\n| {' | '.join(columns)} |\n{'|---' * len(columns)}|")
    for call in LANGUAGE_MODELS:
        print(comparison(call, mesh), flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error
