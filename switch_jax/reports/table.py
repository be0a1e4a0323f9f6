"""Makes the table of runs: the settings that differ, the last values, and their run.json."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from switch_jax.metrics import RECORDED_STATISTICS, Join
from switch_jax.reports.findings import Findings
from switch_jax.reports.records import CONTENT_QUALITY, QUALITY
from switch_jax.reports.runs import GENERATED, Run
from switch_jax.utils.units import aligned, percent, perplexity, rounded

if TYPE_CHECKING:  # it loads JAX and TensorFlow
    from switch_jax.inference.continuations import HeldOutText

Rows = dict[str, list[str]]  # what -> a text for each run
_NONE = "–"
_EXAMPLES = 2  # of text, on the terminal
_WIDEST = 120  # characters of a text there


def table(findings: Findings) -> dict[str, Rows]:
    """Returns the rows below each heading, without numbers that no run has."""
    runs = findings.runs
    facts = dict.fromkeys(key for run in runs for key in run.facts if key != "name")
    return {
        "Settings that differ": differences(runs),
        "Last values": _results(findings),
        "run.json": {"folder": [run.folder for run in runs]}
        | {key: [run.fact(key) for run in runs] for key in facts},
    }


def text_lines(findings: Findings, text: HeldOutText | None = None) -> list[str]:
    """Returns the lines for the terminal: differences, sizes, results, comparisons and notes.

    Of the `text` that the runs wrote, if they were asked, there are two examples.
    """
    names = [run.name for run in findings.runs]
    rows = differences(findings.runs) | _parameters(findings.runs) | _results(findings)
    cells = [("", *names), *((label, *values) for label, values in rows.items())]
    lines = [*aligned(cells, right=range(1, len(names) + 1)), ""]
    return lines + [
        *(c.sentence for c in findings.comparisons),
        *(f"note: {x}" for x in findings.notes),
        *(_example_lines(text) if text else ()),
    ]


def _example_lines(text: HeldOutText) -> list[str]:
    lines = []
    for example in text.examples[:_EXAMPLES]:
        named = {"held-out text": example.beginning, "goes on": example.truth, **example.texts}
        rows = [(name, textwrap.shorten(words, _WIDEST)) for name, words in named.items()]
        lines += ["", *aligned(rows)]
    return lines


def differences(runs: list[Run]) -> Rows:
    """Returns the settings that differ between the runs, of those that every config.json has."""
    known = [set(run.settings) for run in runs if run.settings]
    rows = {}
    for name in sorted(set.intersection(*known)) if known else ():
        values = [run.settings[name] for run in runs if run.settings]
        if any(value != values[0] for value in values):
            rows[name] = [repr(run.settings[name]) if run.settings else _NONE for run in runs]
    return rows


def _parameters(runs: list[Run]) -> Rows:
    """Returns how many parameters the models have, and a token meets, as far as run.json has it."""
    labels = {"parameters": "Parameters", "active_parameters": "Parameters, active per token"}
    return {
        label: [run.fact(key) for run in runs]
        for key, label in labels.items()
        if any(key in run.facts for run in runs)
    }


def _results(findings: Findings) -> Rows:
    runs = findings.runs
    rows: Rows = {}

    def add(label: str, form: Callable[[float], str], number: Callable[[Run], float]) -> None:
        cells = [_cell(form, [number(seed) for seed in run.each_seed]) for run in runs]
        if set(cells) != {_NONE}:
            rows[label] = cells

    def held_out(name: str) -> Callable[[Run], float]:
        return lambda run: c.last(name) if (c := findings.held_out(run)) else math.nan

    def compared(run: Run) -> float:
        return c.last(QUALITY) if (c := findings.compared(run)) else math.nan

    def evaluated_at(run: Run) -> float:
        return c.step[-1] if (c := findings.held_out(run)) else math.nan

    if findings.ends_differ:
        add("Last evaluated at step", "{:,.0f}".format, evaluated_at)
    add("Held-out neg. log perplexity [nats]", rounded, held_out(QUALITY))
    add("Held-out perplexity", rounded, lambda run: perplexity(held_out(QUALITY)(run)))
    add("Held-out token accuracy", percent, held_out("accuracy"))
    content = "Held-out without sentinels and EOS: "
    add(f"{content}neg. log perplexity [nats]", rounded, held_out(CONTENT_QUALITY))
    add(f"{content}token accuracy", percent, held_out("content_accuracy"))
    if findings.ends_differ and (step := findings.common_step):
        label = f"Held-out neg. log perplexity at step {step:,}, the last that all have [nats]"
        add(label, rounded, compared)
    for name in findings.generated:
        add(f"Generated text: {name.removeprefix(GENERATED)}", rounded, held_out(name))
    add("Training neg. log perplexity [nats]", rounded, lambda run: run.train.last(QUALITY))
    add("Steps", "{:,.0f}".format, lambda run: run.last_step)
    add("Training time", findings.duration, lambda run: run.seconds)
    add("Throughput, median [tokens/s]", "{:,.0f}".format, _throughput)
    if any(run.skipped_steps for run in runs):
        add("Bad steps skipped", "{:,.0f}".format, lambda run: run.skipped_steps)
    for name, statistic in RECORDED_STATISTICS.items():
        if statistic.chart:
            label = f"{statistic.chart.title}, {statistic.join} of layers"
            unit = " [nats]" if statistic.unit == "nats" else ""
            add(f"{label}{unit}", statistic.text, partial(_over_layers, name, statistic.join))
    return rows


def _cell(form: Callable[[float], str], of_seeds: Sequence[float]) -> str:
    """Writes a number, or the mean of those of several seeds and their standard deviation."""
    if not all(map(math.isfinite, of_seeds)):
        return _NONE
    mean = form(statistics.fmean(of_seeds))
    return f"{mean} ± {form(statistics.stdev(of_seeds))}" if len(set(of_seeds)) > 1 else mean


def _throughput(run: Run) -> float:
    speeds = run.train.get("tokens_per_second")
    return statistics.median([*speeds[speeds > 0]] or [math.nan])


def _over_layers(name: str, join: Join, run: Run) -> float:
    routers = [router for stack in run.routers.values() for router in stack.values()]
    return float(join.of([router.last(name) for router in routers])) if routers else math.nan
