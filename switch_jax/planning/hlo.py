"""Reads optimised HLO: the operations of a compiled program, and how often each runs."""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping

from switch_jax.planning import hlo_flops
from switch_jax.planning.hlo_flops import require_match

UNKNOWN_CYCLES = 2**63 - 1
# Opcodes that cost nothing, or whose cost is that of their body.
FREE_OPCODES = frozenset(
    "after-all bitcast call conditional constant get-tuple-element iota opt-barrier parameter "
    "partition-id replica-id tuple while".split()
)
# Custom calls that are only hints to the compiler, for example that arrays are contiguous.
FREE_CUSTOM_CALLS = ("AllocateBuffer", "AssumeGatherIndicesInBound", "ConcatBitcast")
COLLECTIVES = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)
TRANSFERS = ("send", "recv")  # between slices
# How a TPU's compiler calls a fusion of an all-reduce with the slice of it that a device keeps.
_REDUCE_SCATTER = "all-reduce-scatter"
_STARTS = ("async-start", "call-start")  # of computations, on a SparseCore for example
# A collective that runs within matrix products stands in each of their fusions: the first one has
# a custom call that starts it, the last one a call that ends it. A first or last fusion without a
# product has one of these names, and takes no time.
_CHAIN_ENDS = ("async-collective-start", "async-collective-done")
_CHAIN = re.compile(r'chain_id="(\d+)"')
_CHAIN_CALL = re.compile(r'custom_call_target="AsyncCollective(Start|Done)"')
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.<>\-]+) \(.*\) -> .* \{$")
_OPERATION = re.compile(r"^\s+(?:ROOT )?%([\w.<>\-]+) = (.*)$")
_OPCODE = re.compile(r" ([a-z][\w\-]*)\(")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_NOT_IN_HBM = re.compile(r"\w+\[[\d,]*\]\{[^}]*S\(\d+\)[^}]*\}")  # but in VMEM or SMEM


@dataclasses.dataclass(frozen=True)
class Operation:
    """One operation of the schedule.

    Attributes:
      name: unique in the program.
      shape: of the result, with layout, as printed.
      attributes: the text after the opcode, beginning with the operands.
      count: executions in one run of the program.
      flops: of the matrix products of one execution.
      op_name: its scopes in the Python program, separated by '/'.
      operands: their shapes, with layout, as printed.
      started_by: name of the operation that starts it in the background; "": none does.
    """

    name: str
    opcode: str
    shape: str
    attributes: str
    count: int
    flops: int
    op_name: str
    operands: tuple[str, ...] = ()
    started_by: str = ""

    @functools.cached_property
    def cycles(self) -> int | None:
        """The compiler's estimate for one execution; None if there is none."""
        estimate = re.search(r'"estimated_cycles":"(\d+)"', self.attributes)
        if not estimate or int(estimate.group(1)) == UNKNOWN_CYCLES:
            return None
        return int(estimate.group(1))

    @property
    def operand_names(self) -> list[str]:
        """The names of the operations whose results are operands."""
        return _operand_names(self.attributes)

    @property
    def hbm_bytes(self) -> int:
        """The bytes of operands and results in HBM, each in full, even if only a part is read."""
        shapes = " ".join((self.shape, *self.operands))
        return sum(array_bytes(*array) for array in arrays(_NOT_IN_HBM.sub("", shapes)))

    @property
    def is_free(self) -> bool:
        """Says whether it needs no time: a view of an array, or a loop, whose body is counted."""
        if self.opcode == "custom-call":
            return any(
                f'custom_call_target="{target}"' in self.attributes for target in FREE_CUSTOM_CALLS
            )
        return self.opcode in FREE_OPCODES

    @property
    def is_timed(self) -> bool:
        """Says whether it needs time of a core, unlike copies and sends in the background.

        The time of collectives is modelled elsewhere, including the additions of an all-reduce. An
        all-to-all also needs time of a core, which moves the blocks within memory; if it is split
        into start and done, the compiler does not say how much.
        """
        is_background = (
            self.opcode.endswith(("-start", "-done"))
            or self.opcode in TRANSFERS
            or self.started_by != ""
            or self.name.startswith(_CHAIN_ENDS)
        )
        is_exchange = self.opcode.startswith(COLLECTIVES) and self.opcode != "all-to-all"
        is_exchange |= f"calls=%{_REDUCE_SCATTER}" in self.attributes
        is_scalar = all(math.prod(dimensions) == 1 for _, dimensions in arrays(self.shape))
        return not (self.is_free or is_background or is_exchange or is_scalar)


def operations(text: str) -> list[Operation]:
    """Reads all operations, also of loop bodies, in the text of `jax.stages.Compiled.as_text`."""
    computations, entry = _computations(text)
    return list(_walk(computations, entry, 1))


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """Returns (dtype, dimensions) of each array in a printed shape, which may be a tuple."""
    return [
        (dtype, tuple(int(n) for n in sizes.split(",") if n))
        for dtype, sizes in _ARRAY.findall(shape)
    ]


def array_bytes(dtype: str, dimensions: tuple[int, ...]) -> int:
    bits = 8 if dtype == "pred" else int(require_match(r"\d+", dtype).group())
    return math.prod(dimensions) * bits // 8


def _computations(text: str) -> tuple[dict[str, list[str]], str]:
    computations: dict[str, list[str]] = {}
    entry, lines = "", []
    for line in text.split("\n"):
        header = _COMPUTATION.match(line)
        if header:
            lines = computations.setdefault(header.group(2), [])
            entry = header.group(2) if header.group(1) else entry
        elif line.startswith("  "):
            lines.append(line)
    return computations, entry


def _walk(computations: dict[str, list[str]], name: str, count: int) -> Iterator[Operation]:
    parsed = (_parse(line, count, 0, {}) for line in computations[name])
    shapes = {operation.name: operation.shape for operation in parsed if operation}
    for line in computations[name]:
        flops = hlo_flops.flops(line, computations[name], computations)
        operation = _parse(line, count, flops, shapes)
        if operation is None:
            continue
        yield operation
        if operation.opcode == "while":
            body = _called(operation, "body")
            trips = _trips(computations[_called(operation, "condition")])
            yield from _walk(computations, body, count * trips)
        elif operation.opcode in ("call", "conditional", "fusion", *_STARTS):
            for callee in _callees(operation):
                inner = _walk(computations, callee, count)  # counts all branches of a conditional
                if operation.opcode == "fusion":  # one operation, but its collectives are counted
                    inner = _collectives_within(inner)
                    if callee.startswith(_REDUCE_SCATTER):
                        inner = (_as_reduce_scatter(o, operation) for o in inner)
                elif operation.opcode in _STARTS:
                    inner = (dataclasses.replace(o, started_by=operation.name) for o in inner)
                yield from inner


def _collectives_within(fused: Iterator[Operation]) -> Iterator[Operation]:
    """The collectives of a fusion; of a chain of fusions only the start and the end."""
    collectives: list[Operation] = []
    part: dict[str, str] = {}  # by name of a collective: what its custom call does
    for operation in fused:
        call = _CHAIN_CALL.search(operation.attributes)
        if call:
            part |= dict.fromkeys(operation.operand_names, call.group(1))
        elif operation.opcode.startswith(COLLECTIVES):
            collectives.append(operation)
    for collective in collectives:
        chain = _CHAIN.search(collective.attributes)
        if chain is None or collective.opcode.endswith("-start"):  # of a fusion within this one
            yield collective
            continue
        name, opcode = f"chain-{chain.group(1)}", collective.opcode
        if part.get(collective.name) == "Start":
            shape = collective.shape
            if opcode != "all-reduce":  # as other starts: operands, then results
                shape = f"({', '.join(collective.operands)}, {shape})"
            yield dataclasses.replace(collective, name=name, opcode=f"{opcode}-start", shape=shape)
        elif part.get(collective.name) == "Done":
            attributes = f"(%{name})"
            yield dataclasses.replace(collective, opcode=f"{opcode}-done", attributes=attributes)


def _as_reduce_scatter(reduction: Operation, fusion: Operation) -> Operation:
    """What such a fusion is: its result is the slice, and the whole sum is never made."""
    return dataclasses.replace(reduction, opcode="reduce-scatter", shape=fusion.shape)


def _parse(line: str, count: int, flops: int, shapes: Mapping[str, str]) -> Operation | None:
    named = _OPERATION.match(line)
    if named is None:
        return None
    opcode = _OPCODE.search(" " + named.group(2))
    if opcode is None:
        return None
    start = opcode.start() - 1
    op_name = re.search(r'op_name="([^"]*)"', named.group(2))
    attributes = named.group(2)[opcode.end() - 1 :]
    return Operation(
        name=named.group(1),
        opcode=opcode.group(1),
        shape=named.group(2)[: max(start, 0)].strip(),
        attributes=attributes,
        operands=tuple(shapes.get(name, "") for name in _operand_names(attributes)),
        count=count,
        flops=flops,
        op_name=op_name.group(1) if op_name else "",
    )


def _operand_names(attributes: str) -> list[str]:
    return re.findall(r"%([\w.<>\-]+)", attributes.split(")")[0])


def _callees(operation: Operation) -> list[str]:
    called = re.search(
        r"\b(?:to_apply|calls|called_computations|branch_computations|true_computation)="
        r"(\{[^}]*\}|%[\w.<>\-]+)",
        operation.attributes,
    )
    return re.findall(r"%([\w.<>\-]+)", called.group(1) if called else "")


def _called(operation: Operation, role: str) -> str:
    return require_match(rf"\b{role}=%?([\w.<>\-]+)", operation.attributes).group(1)


def _trips(condition: list[str]) -> int:
    """Finds the iterations of a loop whose counter goes from 0 to a constant."""
    bounds = [int(n) for n in re.findall(r"= s32\[\][^=]* constant\((\d+)\)", "\n".join(condition))]
    return max(bounds, default=1)
