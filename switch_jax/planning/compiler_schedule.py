"""Counts the cycles of an operation in the compiler's schedule, if there is no estimate.

The TPU's compiler can write the instruction bundles of each operation, with the exit test of each
loop. A bundle takes one cycle if nothing stalls. So the sum of bundles, times iterations in loops,
is right for kernels that compute in VMEM, and a lower bound for those that wait for memory.

A kernel does some work only at the first or at the last step of a dimension of its grid
(`pl.when`), and branches around it in all others. The compiler's comments name the counters of the
grid; where such a branch compares one, what it skips counts for the steps that do not. All other
branches count as if nothing were skipped.
"""

import dataclasses
import re
from collections import Counter
from collections.abc import Collection
from fractions import Fraction
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


@dataclasses.dataclass
class _Skipped:
    """Bundles from `first` to `last` run in `share` of the iterations of the loop around them."""

    first: int
    last: int
    share: Fraction


def cycles_by_operation(folder: Path, names: Collection[str]) -> dict[str, int]:
    """Counts cycles by name, for the named operations whose schedule is in the folder."""
    cycles = {}
    for path in folder.glob("*-final_bundles.txt"):
        name = _FILE.match(path.name)
        if name and name.group(1) in names:
            cycles[name.group(1)] = count_cycles(path.read_text(errors="replace"))
    return cycles


def count_cycles(text: str) -> int:
    """Adds up bundles times iterations; a loop whose iterations depend on data counts once."""
    bundles = _bundles(text)
    loops, skipped = _loops(bundles), _skipped(bundles)
    total = Fraction(0)
    for address, _, _ in bundles:
        iterations = Fraction(1)
        for loop in loops:
            if loop.first <= address <= loop.last:
                iterations *= loop.iterations
        # Of branches around each other the rarest counts: they may be on the same counter.
        around = [part.share for part in skipped if part.first <= address <= part.last]
        total += iterations * min(around, default=1)
    return round(total)


def _bundles(text: str) -> list[tuple[int, str, str]]:
    """Returns (address, label, instructions) of each bundle."""
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
    """Finds the iterations of a loop, from the comparison that ends it."""
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


def _skipped(bundles: list[tuple[int, str, str]]) -> list[_Skipped]:
    """Finds bundles that run at only one step of a dimension of the grid, or at all but one."""
    program = " ".join(text for _, _, text in bundles)
    sizes = _grid_sizes(program)
    starts = {
        region: address
        for address, _, text in bundles
        for region in re.findall(r"Start(?:/End empty)? region (\d+)", text)
    }
    found = []
    for address, _, text in bundles:
        for negated, test, region in re.findall(
            r"sbr\.rel \((!?)(%\w+)\) target = \$region(\d+)", text
        ):
            comparison = re.search(
                re.escape(test) + r" = scmp\.(ne|eq)\.s32\.totalorder (%\w+), \d+", program
            )
            target = starts.get(region, 0)
            if target > address and comparison and comparison.group(2) in sizes:
                share = Fraction(1, sizes[comparison.group(2)])
                at_one_step = (comparison.group(1) == "ne") != bool(negated)
                first = address + DELAY_SLOTS + 1
                found.append(_Skipped(first, target - 1, share if at_one_step else 1 - share))
    return found


def _grid_sizes(program: str) -> dict[str, int]:
    """Returns the steps of a dimension of the grid, by the register that counts them."""
    dimensions = dict(re.findall(r"(%\w+) = sphi [^;}]*iter bound = (\d+)", program))
    stores = re.findall(r"sst \[smem:\[#(\w+_spill)\]\] (?:\([^)]*\), )?(%\w+)", program)
    stores_to = Counter(slot for slot, _ in stores)
    for slot, register in stores:
        if register in dimensions and stores_to[slot] == 1:  # other registers are loaded from there
            loads = re.findall(rf"(%\w+) = sld \[smem:\[#{slot}\]\]", program)
            dimensions |= dict.fromkeys(loads, dimensions[register])
    sizes: dict[str, set[int]] = {}
    for following, register in re.findall(r"(%\w+) = sadd\.s32 1, (%\w+)", program):
        if register in dimensions:
            test = rf"scmp\.ge\.s32\.totalorder {re.escape(following)}, (\d+)"
            found = sizes.setdefault(dimensions[register], set())
            found.update(int(bound) for bound in re.findall(test, program))
    known = {name: found.pop() for name, found in sizes.items() if len(found) == 1}
    return {register: known[name] for register, name in dimensions.items() if name in known}
