"""Cycles of an operation from the compiler's instruction schedule, if there is no estimate.

The TPU's compiler can write the instruction bundles of each operation, with the exit test of each
loop. A bundle takes one cycle if nothing stalls. So the sum of bundles, times iterations in loops,
is right for kernels that compute in VMEM, and a lower bound for those that wait for memory.
"""

import dataclasses
import re
from collections.abc import Collection
from pathlib import Path

# A branch takes effect after this many bundles.
DELAY_SLOTS = 4
_BUNDLE = re.compile(r"^\s*(0x[0-9a-f]+|\d+)\s+(LB|LH|LE|PB|PF|CT)?\s*:\s*>*\s*(\{.*)")
_FILE = re.compile(r"\d+-(.*)-\d+-final_bundles\.txt$")


@dataclasses.dataclass
class _Loop:
    first: int
    last: int
    iterations: int


def cycles_by_operation(folder: Path, names: Collection[str]) -> dict[str, int]:
    """Cycles of those of the named operations whose schedule is in the folder, by name."""
    cycles = {}
    for path in folder.glob("*-final_bundles.txt"):
        name = _FILE.match(path.name)
        if name and name.group(1) in names:
            cycles[name.group(1)] = count_cycles(path.read_text(errors="replace"))
    return cycles


def count_cycles(text: str) -> int:
    """Bundles times iterations; a loop whose iterations depend on data counts once."""
    bundles = _bundles(text)
    loops = _loops(bundles)
    total = 0
    for address, _, _ in bundles:
        iterations = 1
        for loop in loops:
            if loop.first <= address <= loop.last:
                iterations *= loop.iterations
        total += iterations
    return total


def _bundles(text: str) -> list[tuple[int, str, str]]:
    """(address, label, instructions) of each bundle."""
    bundles: list[tuple[int, str, str]] = []
    for line in text.split("\n"):
        bundle = _BUNDLE.match(line)
        if bundle:
            bundles.append((int(bundle.group(1), 0), bundle.group(2) or "", bundle.group(3)))
        elif bundles:
            address, label, instructions = bundles[-1]
            bundles[-1] = (address, label, instructions + " " + line)
    return bundles


def _loops(bundles: list[tuple[int, str, str]]) -> list[_Loop]:
    starts = {
        region: address
        for address, label, text in bundles
        if label == "LB"
        for region in re.findall(r"Start region (\d+)", text)
    }
    initial: dict[str, int] = {}
    for _, _, text in bundles:
        for register, value in re.findall(r"(%\w+) = smov (?:\([^)]*\), )?(\d+)\b", text):
            initial.setdefault(register, int(value))
    ends: dict[int, tuple[int, str]] = {}
    for address, _, text in bundles:
        for test, region in re.findall(r"sbr\.rel \(!?(%\w+)\) target = \$region(\d+)", text):
            if region in starts and address >= starts[region]:
                ends[starts[region]] = (address, test)
    loops = []
    for first, (last, test) in ends.items():
        body = " ".join(text for address, _, text in bundles if first <= address <= last)
        loops.append(_Loop(first, last + DELAY_SLOTS, _iterations(body, test, initial)))
    return loops


def _iterations(body: str, test: str, initial: dict[str, int]) -> int:
    """Iterations of a loop, from the comparison that ends it."""
    compare = re.search(
        re.escape(test) + r" = scmp\.\w+\.s32\.totalorder (?:\([^)]*\), )?(%\w+), (\d+)", body
    )
    if not compare:
        # A predicate that is negated in each iteration: two iterations.
        alternates = re.search(re.escape(test) + r" = (?:pphi|pmov 1)", body)
        return 2 if alternates else 1
    counter, bound = compare.group(1), int(compare.group(2))
    step = re.search(
        re.escape(counter) + r" = sadd\.s32 (?:\([^)]*\), )?(?:(\d+), (%\w+)|(%\w+), (\d+))", body
    )
    if not step:
        return max(1, bound)
    increment, previous = int(step.group(1) or step.group(4)), step.group(2) or step.group(3)
    phi = re.search(re.escape(previous) + r" = sphi (%\w+),", body)
    start = initial.get(phi.group(1), 0) if phi else 0
    return max(1, -(-(bound - start) // increment))
