"""Cycles of the attention kernels on TPU, from the schedule of the TPU's own compiler.

    python benchmarks/tpu_attention.py [--topology v5p:2x2x1]

Forward and backward of one call on a chip, bfloat16: the three of a layer of T5-Base with 16 rows
of 512 and 114 tokens, other lengths, and heads of 128. "At least" is what the products take if
matrix units are full. With heads of 64, each product has one side of 64, half of a unit's.
"""

import argparse
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.config import MeshConfig
from switch_jax.hardware.tpus import Slice, parse_slice
from switch_jax.kernels.attention_kernel import fused_attention
from switch_jax.partitioning.compiler_options import compiler_options
from switch_jax.partitioning.mesh import BATCH, make_mesh
from switch_jax.planning.compiler import OutOfMemory, compile_program, devices
from switch_jax.utils.errors import UserError


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


def cycles_of(call: Call, mesh: Mesh) -> dict[str, int]:
    """Of the forward and of the backward kernel."""
    rows, inner = call.rows * mesh.size, call.heads * call.size
    width = -(-max(call.queries, call.keys) // 128) * 128
    of_rows, whole = PartitionSpec(BATCH), PartitionSpec()

    def abstract(shape, dtype, spec=of_rows):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    q, k = (abstract((rows, n, inner), jnp.bfloat16) for n in (call.queries, call.keys))
    segments = [abstract((rows, n), jnp.int32) for n in (call.queries, call.keys)]
    bias = abstract((call.heads, 2 * width), jnp.float32, whole) if call.has_bias else None
    attend = jax.shard_map(
        functools.partial(fused_attention, num_heads=call.heads, causal=call.causal),
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
    kernels = {name: n for name, n in program.scheduled.items() if "_attention" in name}
    return {name.split("_")[0]: cycles for name, cycles in kernels.items()}


def row(name: str, call: Call, mesh: Mesh, hardware: Slice) -> str:
    """A row of the table."""
    cycles = cycles_of(call, mesh)
    products = 2 * call.rows * call.heads * call.queries * call.keys * call.size
    floor = products / hardware.generation.flops_per_cycle
    cells = [
        f"{cycles[kind]:,} | {round(count * floor):,}"
        for kind, count in (("forward", 2), ("backward", 5))
    ]
    sizes = f"{call.rows} x {call.queries} x {call.keys}, {call.heads} heads of {call.size}"
    return f"| {name} | {sizes} | {' | '.join(cells)} |"


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


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from error
