"""CPU time of a training step by part, in ms, of the configs that `step_ratio.py` takes.

    python benchmarks/step_parts.py "models/t5_demo.gin runs/demo.gin" \
        "models/switch_demo.gin runs/demo.gin"

Each operation of the compiled program belongs to the part that its name in the program says.
The profiler's times are wall times on one core that devices share, so they only divide the CPU
time of the step; waiting for another device is no operation.
"""

import argparse
import collections
import re
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from step_ratio import config_of, cpu_seconds, prepare  # first: it keeps to a core before JAX

import jax  # isort: skip
from switch_jax.runtime.host_memory import keep_freed_memory  # isort: skip
from switch_jax.utils.units import aligned  # isort: skip

# The first that an operation's opcode and name match.
PARTS = {
    "collectives": r"^(all-|reduce-scatter|collective)",
    "optimiser": r"/optimizer",
    "logits and loss": r"\blogits\b",
    "router": r"/router",
    "sort and gathers": r"/(dispatch|combine)",
    "experts": r"/experts",
    "attention": r"/attention",
    "dense feed-forward": r"/dense_ffn",
    "embedding, norms, residuals": r"/",
    "other": "",
}
INSTRUCTION = re.compile(
    r"^ *(?:ROOT )?%(?P<name>[\w.-]+) = .*? (?P<opcode>[a-z][\w-]*)\("
    r'.*?(?:op_name="(?P<op>[^"]*)"|$)',
    re.M,
)


def part_of_each(hlo: str) -> dict[str, str]:
    """Name of an instruction -> its part."""
    return {
        i["name"]: next(part for part, words in PARTS.items() if re.search(words, text))
        for i in INSTRUCTION.finditer(hlo)
        for text in [f"{i['opcode']} {i['op'] or ''}"]
    }


def self_times(line) -> Iterator[tuple[str, float]]:
    """Name and ns of each event of a thread, without the events inside it."""
    open_events: list[list] = []  # name, end, ns of its own
    for event in sorted(line.events, key=lambda e: (e.start_ns, -e.duration_ns)):
        while open_events and open_events[-1][1] <= event.start_ns:
            name, _, own = open_events.pop()
            yield name, own
        if open_events:
            open_events[-1][2] -= event.duration_ns
        end = event.start_ns + event.duration_ns
        open_events.append([event.name, end, event.duration_ns])
    yield from ((name, own) for name, _, own in open_events)


def measure(text: str, turns: int) -> dict[str, float]:
    """Part -> CPU ms of a step."""
    hlo, run = prepare(config_of(text))
    run()
    whole = 1000 * statistics.median(cpu_seconds(run) for _ in range(turns))
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run()
        (file,) = Path(folder).rglob("*.xplane.pb")
        data = jax.profiler.ProfileData.from_file(str(file))
    parts, found = part_of_each(hlo), collections.Counter[str]()
    for plane in data.planes:
        for line in plane.lines:
            for name, own in self_times(line):
                if name in parts:
                    found[parts[name]] += own
    total = sum(found.values())
    return {"whole step": whole} | {part: whole * found[part] / total for part in PARTS}


def main() -> None:
    """Prints a column for each config."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="gin files and NAME=VALUE")
    parser.add_argument("--turns", type=int, default=10, help="default: %(default)s")
    args = parser.parse_args()
    keep_freed_memory()  # as `switch_jax train` does
    columns = [measure(text, args.turns) for text in args.configs]
    for number, text in enumerate(args.configs, 1):
        print(f"{number}: {text}")
    rows = [["", *(str(number) for number in range(1, 1 + len(columns)))]]
    rows += [[part, *(f"{column[part]:.1f}" for column in columns)] for part in columns[0]]
    print("\n".join(aligned(rows)))


if __name__ == "__main__":
    main()
