"""What the devices of a compiled program send each other: how much, over what, how long."""

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np
from jax.sharding import Mesh

from switch_jax.hardware import Slice
from switch_jax.planning.hlo import COLLECTIVES, Operation, arrays
from switch_jax.planning.hlo_text import require_match

_BITS = {"pred": 8, "bf16": 16}
# What one slice sends to the others, through its hosts.
_ACROSS_SLICES = re.compile(r'_xla_megascale_transfer_type="(\w+)"')
BETWEEN_SLICES = "data between slices"


@dataclasses.dataclass(frozen=True)
class Collective:
    """Equal exchanges of a step, taken together.

    Attributes:
      op: HLO's name of the kind.
      dtype: of what is sent.
      axis: the mesh axes that it runs over, joined by '+', or `BETWEEN_SLICES`.
      count: a step.
      bytes: a step and device: of the results; of a reduce-scatter, of its operand.
      seconds: in the model of `seconds_of`, one after the other.
    """

    op: str
    dtype: str
    axis: str
    count: int
    bytes: int
    seconds: float


def collectives(operations: Iterable[Operation], mesh: Mesh, hardware: Slice) -> list[Collective]:
    """All collectives of a step, equal kinds, dtypes and axes added up."""
    totals: dict[tuple[str, str, str], list[float]] = {}
    for operation in operations:
        across = operation.opcode == "send" and _ACROSS_SLICES.search(operation.attributes)
        if across:
            kind, axis = across.group(1).lower().replace("_", "-"), BETWEEN_SLICES
            group = _one_of_each_slice(mesh)
        elif operation.opcode.removesuffix("-start") in COLLECTIVES:
            kind = operation.opcode.removesuffix("-start")
            group = _first_group(operation)
            axis = _axis(group, mesh)
        else:
            continue
        if len(group) < 2:
            continue
        first = True
        for dtype, size in _sent(operation, kind, len(group)).items():
            total = totals.setdefault((kind, dtype, axis), [0, 0, 0.0])
            total[0] += operation.times if first else 0
            total[1] += size * operation.times
            total[2] += seconds_of(kind, size, group, mesh, hardware) * operation.times
            first = False
    return [
        Collective(*key, int(count), int(size), seconds)
        for key, (count, size, seconds) in sorted(totals.items(), key=lambda t: -t[1][2])
    ]


def seconds_of(kind: str, size: float, group: Sequence[int], mesh: Mesh, hardware: Slice) -> float:
    """A model of one collective's time: bytes over the links that its group spans.

    The group's chips are taken for a box of the torus, k chips along each dimension that it spans,
    whose links all work at once. Gathering and scattering send (n - 1) / n of the bytes through
    each chip, reducing everywhere twice that. In an all-to-all the links of the longest dimension
    are the narrow place: k / 8 of a chip's bytes cross each, or k / 4 where the ring is not closed.
    Latency is left out. Between slices, a chip's share of the network is the limit.
    """
    generation = hardware.generation
    devices = mesh.devices.flat
    members = [devices[i] for i in group]
    slices = {getattr(d, "slice_index", 0) for d in members}
    n = len(group)
    if len(slices) > 1:
        across = len(slices)
        rounds = 2 if kind == "all-reduce" else 1
        # What a slice has reduced or gathered by itself is spread over its chips first.
        share = size / max(1, n // across)
        return rounds * share * (across - 1) / across / generation.dcn_bandwidth
    extents = [len({d.coords[i] for d in members}) for i in range(generation.torus_dimensions)]
    spanned = [k for k in extents if k > 1]
    if not spanned:  # two cores of one chip
        return size / generation.hbm_bandwidth
    both_ways = 2 * generation.link_bandwidth
    if kind in ("all-to-all", "ragged-all-to-all"):
        longest = max(spanned)
        closed = longest == max(hardware.shape) and longest >= 4
        return size * longest / (8 if closed else 4) / generation.link_bandwidth
    rounds = 2 if kind == "all-reduce" else 1
    if kind == "collective-permute":
        return size / generation.link_bandwidth
    return rounds * size * (n - 1) / n / (both_ways * len(spanned))


def _sent(operation: Operation, kind: str, members: int) -> dict[str, int]:
    """Bytes by dtype."""
    shapes = arrays(operation.shape)
    if operation.opcode == "send":
        shapes = shapes[:1]  # then, a number and a token
    elif operation.opcode == "collective-permute-start":
        shapes = shapes[1:2]  # operand, result, and two numbers
    elif operation.opcode.endswith("-start") and kind != "all-reduce":
        shapes = shapes[len(shapes) // 2 :]  # operands, then results
    whole = "all-gather" if operation.opcode == "send" else "reduce-scatter"
    sizes: dict[str, int] = {}
    for dtype, dimensions in shapes:
        bits = _BITS.get(dtype) or int(require_match(r"\d+", dtype).group())
        size = math.prod(dimensions) * bits // 8
        sizes[dtype] = sizes.get(dtype, 0) + size * (members if kind == whole else 1)
    return sizes


def _first_group(operation: Operation) -> list[int]:
    """Numbers of the devices, in the mesh's order, that exchange among themselves."""
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
        axes, dimensions, order, names = named.groups()
        places = _along(axes, names)
        return _numbers(dimensions, order)[places].tolist() if dimensions else places
    iota = require_match(
        r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", operation.attributes
    )
    groups, size = int(iota.group(1)), int(iota.group(2))
    return _numbers(iota.group(3), iota.group(4)).reshape(groups, size)[0].tolist()


def _numbers(sizes: str, order: str | None) -> np.ndarray:
    """0, 1, ... in an array of the sizes "4,8", whose axes then take the order "1,0"; flat."""
    dimensions = [int(n) for n in sizes.split(",")]
    numbers = np.arange(math.prod(dimensions)).reshape(dimensions)
    if order:
        numbers = numbers.transpose([int(n) for n in order.split(",")])
    return numbers.reshape(-1)


def _along(axes: str, names: str) -> list[int]:
    """The first group of "'a'=4,'b'=8" along "'b'", or along "'b':(2)4", a part of an axis."""
    sizes: list[int] = []
    taken: list[bool] = []
    parts = {n: (int(p), int(s)) for n, p, s in re.findall(r"'(\w+)':\((\d+)\)(\d+)", names)}
    whole = re.findall(r"'(\w+)'(?!:)", names)
    for name, size in re.findall(r"'(\w+)'=(\d+)", axes):
        before, part = parts.get(name, (1, int(size) if name in whole else 1))
        sizes += [before, part, int(size) // (before * part)]
        taken += [False, True, False]
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    return numbers[tuple(slice(None) if t else 0 for t in taken)].reshape(-1).tolist()


def _one_of_each_slice(mesh: Mesh) -> list[int]:
    """Numbers of the first device of each slice, in the mesh's order."""
    first: dict[int, int] = {}
    for number, device in enumerate(mesh.devices.flat):
        first.setdefault(getattr(device, "slice_index", 0), number)
    return list(first.values())


def _axis(group: Sequence[int], mesh: Mesh) -> str:
    coordinates = np.stack(np.unravel_index(np.asarray(group), mesh.devices.shape))
    varies = [name for name, c in zip(mesh.axis_names, coordinates, strict=True) if len(set(c)) > 1]
    return "+".join(varies)
