"""Finds the collectives of a compiled program: bytes, mesh axes, and a model of their time."""

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh

from switch_jax.hardware.tpus import Slice, num_slices
from switch_jax.planning.hlo import COLLECTIVES, Operation, array_bytes, arrays
from switch_jax.planning.hlo_flops import require_match
from switch_jax.planning.overlap import waiting_seconds

# A collective between slices, which goes through the hosts.
_ACROSS_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
BETWEEN_SLICES = "data between slices"


@dataclasses.dataclass(frozen=True)
class Collective:
    """All collectives of a step with the same op, dtype and axis.

    Attributes:
      op: its name in HLO.
      axis: the mesh axes of the replica group, joined by '+', or `BETWEEN_SLICES`.
      count: collectives in a step.
      bytes: size of the results, for each device and step; of the operand for a reduce-scatter.
      seconds: the sum of their times, in the model of `seconds_of`.
      waiting_seconds: those in which the device waits for them, and for collectives before them
        on the links, in the model of `overlap.waiting_seconds`.
    """

    op: str
    dtype: str
    axis: str
    count: int
    bytes: int
    seconds: float
    waiting_seconds: float


class _Exchange(NamedTuple):
    """One operation that sends data, with bytes and seconds of a step by dtype."""

    op: str
    axis: str
    bytes: dict[str, int]
    seconds: dict[str, float]


def collectives(
    operations: Sequence[Operation],
    mesh: Mesh,
    hardware: Slice,
    computing: Sequence[float],
    compiled_for: int | None = None,
) -> list[Collective]:
    """Finds all collectives of a step, the slowest first.

    `operations` are all of the program, in their order, and `computing` their seconds in a step.
    `compiled_for` is the number of slices that it was compiled for, by default that of `hardware`.
    """
    slices = compiled_for or hardware.count
    exchanges = [_exchange(operation, mesh, hardware, slices) for operation in operations]
    whole = [sum(exchange.seconds.values()) if exchange else 0.0 for exchange in exchanges]
    waits = waiting_seconds(operations, computing, whole, hardware.count)
    totals: dict[tuple[str, str, str], list[float]] = {}
    for index, exchange in enumerate(exchanges):
        if exchange is None:
            continue
        count = operations[index].count
        waiting = waits[index] / whole[index] if whole[index] else 0.0
        for dtype, taken in exchange.seconds.items():
            total = totals.setdefault((exchange.op, dtype, exchange.axis), [0, 0, 0.0, 0.0])
            total[0] += count
            total[1] += exchange.bytes[dtype]
            total[2] += taken
            total[3] += taken * waiting
            count = 0  # one exchange, whatever its dtypes
    return [
        Collective(*key, int(count), int(size), taken, waiting)
        for key, (count, size, taken, waiting) in sorted(totals.items(), key=lambda t: -t[1][2])
    ]


def _exchange(operation: Operation, mesh: Mesh, hardware: Slice, slices: int) -> _Exchange | None:
    """Describes an operation that sends data; None for any other."""
    across = operation.opcode == "send" and _ACROSS_SLICES.search(operation.attributes)
    if across:
        op, axis = across.group(1).lower().replace("_", "-"), BETWEEN_SLICES
        devices = mesh.devices.size  # slices lie one after the other, along data
        group = list(range(0, devices, devices // slices))
    elif operation.opcode.removesuffix("-start") in COLLECTIVES:
        op = operation.opcode.removesuffix("-start")
        group = _first_group(operation)
        axis = _varying_axes(group, mesh)
    else:
        return None
    if len(group) < 2:
        return None
    sizes = _bytes_by_dtype(operation, op, len(group))
    return _Exchange(
        op,
        axis,
        {dtype: size * operation.count for dtype, size in sizes.items()},
        {
            dtype: seconds_of(op, size, group, mesh, hardware) * operation.count
            for dtype, size in sizes.items()
        },
    )


def seconds_of(op: str, size: float, group: Sequence[int], mesh: Mesh, hardware: Slice) -> float:
    """Models the time of one collective: its bytes over the bandwidth of the group's links.

    The group of n chips is modelled as a box of the torus with k chips along each dimension, whose
    links all work in parallel. An all-gather or reduce-scatter sends (n - 1) / n of the bytes
    through each chip, an all-reduce twice as much. The bottleneck of an all-to-all are the links of
    the longest dimension: k / 8 of a chip's bytes cross each of them, or k / 4 if they do not form
    a ring. Latency is not modelled. Between slices, a chip's share of the network is the limit.

    `size` is in bytes on each device, as `Collective.bytes`; the group has indices of the mesh's
    devices, which have coordinates.
    """
    generation = hardware.generation
    devices = mesh.devices.flat
    chips = [devices[i] for i in group]
    slices = num_slices(chips)
    n = len(group)
    rounds = 2 if op == "all-reduce" else 1
    if slices > 1:
        # Within a slice, the data were reduced or are gathered over its chips.
        share = size / max(1, n // slices)
        return rounds * share * (slices - 1) / slices / generation.dcn_bandwidth
    extents = [len({c.coords[i] for c in chips}) for i in range(generation.torus_dimensions)]
    extents = [k for k in extents if k > 1]
    if not extents:  # two cores of one chip
        return size / generation.hbm_bandwidth
    if op in ("all-to-all", "ragged-all-to-all"):
        longest = max(extents)
        is_ring = longest == max(hardware.shape) and longest >= 4
        return size * longest / (8 if is_ring else 4) / generation.link_bandwidth
    if op == "collective-permute":
        return size / generation.link_bandwidth
    bandwidth = 2 * generation.link_bandwidth * len(extents)  # in both directions
    return rounds * size * (n - 1) / n / bandwidth


def _bytes_by_dtype(operation: Operation, op: str, group_size: int) -> dict[str, int]:
    """Returns the bytes on each device, see `Collective.bytes`."""
    shapes = arrays(operation.shape)
    if operation.opcode == "send":
        shapes = shapes[:1]  # the data, a context and a token
    elif operation.opcode.endswith("-start") and op != "all-reduce":
        # Operands, then results; some have two contexts, which are scalars, after them.
        shapes = [shape for shape in shapes if shape != ("u32", ())]
        shapes = shapes[len(shapes) // 2 :]
    # The printed shape is 1 / n of the bytes: a send has its operand, the others their result.
    is_shard = op == ("all-gather" if operation.opcode == "send" else "reduce-scatter")
    sizes: dict[str, int] = {}
    for dtype, dimensions in shapes:
        size = array_bytes(dtype, dimensions)
        sizes[dtype] = sizes.get(dtype, 0) + size * (group_size if is_shard else 1)
    return sizes


def _first_group(operation: Operation) -> list[int]:
    """Returns the indices, in the mesh's order, of the devices of the first replica group."""
    explicit = re.search(r"replica_groups=\{\{([\d,]*)\}", operation.attributes)
    if explicit:
        return [int(n) for n in explicit.group(1).split(",") if n]
    pairs = re.search(r"source_target_pairs=\{\{(\d+),(\d+)\}", operation.attributes)
    if pairs:
        return [int(pairs.group(1)), int(pairs.group(2))]
    named = re.search(
        r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? "
        r"\{([^}]*)\}",
        operation.attributes,
    )
    if named:
        axes, dimensions, permutation, names = named.groups()
        group = _group_along(axes, names)
        return _device_order(dimensions, permutation)[group].tolist() if dimensions else group
    iota = require_match(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", operation.attributes
    )
    num_groups, size = int(iota.group(1)), int(iota.group(2))
    return _device_order(iota.group(3), iota.group(4)).reshape(num_groups, size)[0].tolist()


def _device_order(sizes: str, permutation: str | None) -> np.ndarray:
    """Transposes np.arange of the sizes "4,8" by the permutation "1,0", and flattens it."""
    dimensions = [int(n) for n in sizes.split(",")]
    indices = np.arange(math.prod(dimensions)).reshape(dimensions)
    if permutation:
        indices = indices.transpose([int(n) for n in permutation.split(",")])
    return indices.reshape(-1)


def _group_along(axes: str, names: str) -> list[int]:
    """Finds the first group of the mesh "'a'=4,'b'=8" along "'b'", or a sub-axis "'b':(2)4".

    The sub-axis (2)4 of an axis of 8 is the middle one when 8 is written as 2 x 4 x 1.
    """
    sizes: list[int] = []
    index: list[slice | int] = []
    sub_axes = {n: (int(p), int(s)) for n, p, s in re.findall(r"'(\w+)':\((\d+)\)(\d+)", names)}
    full_axes = re.findall(r"'(\w+)'(?!:)", names)
    for name, size in re.findall(r"'(\w+)'=(\d+)", axes):
        before, length = sub_axes.get(name, (1, int(size) if name in full_axes else 1))
        sizes += [before, length, int(size) // (before * length)]
        index += [0, slice(None), 0]
    indices = np.arange(math.prod(sizes)).reshape(sizes)
    return indices[tuple(index)].reshape(-1).tolist()


def _varying_axes(group: Sequence[int], mesh: Mesh) -> str:
    """Joins by '+' the mesh axes along which the group's coordinates differ."""
    coordinates = np.stack(np.unravel_index(np.asarray(group), mesh.devices.shape))
    varies = [name for name, c in zip(mesh.axis_names, coordinates, strict=True) if len(set(c)) > 1]
    return "+".join(varies)
