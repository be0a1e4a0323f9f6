"""Makes the table of runs: the settings that differ, the last values, and their run.json."""

import math
import statistics
from collections.abc import Callable, Sequence

from switch_jax.metrics import RECORDED_STATISTICS, Join
from switch_jax.reports.findings import Findings
from switch_jax.reports.records import CONTENT_QUALITY, QUALITY
from switch_jax.reports.runs import GENERATED, Run
from switch_jax.utils.units import aligned, percent, perplexity, rounded

Rows = dict[str, list[str]]  # what -> a text for each run
_NONE = "–"


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


def text_lines(findings: Findings) -> list[str]:
    """Returns the lines for the terminal: differences, results, comparisons and notes."""
    names = [run.name for run in findings.runs]
    rows = differences(findings.runs) | _results(findings)
    cells = [("", *names), *((label, *values) for label, values in rows.items())]
    lines = [*aligned(cells, right=range(1, len(names) + 1)), ""]
    return lines + [
        *(c.sentence for c in findings.comparisons),
        *(f"note: {x}" for x in findings.notes),
    ]


def differences(runs: list[Run]) -> Rows:
    """Returns the settings that differ between the runs, of those that every config.json has."""
    known = [set(run.settings) for run in runs if run.settings]
    rows = {}
    for name in sorted(set.intersection(*known)) if known else ():
        values = [run.settings[name] for run in runs if run.settings]
        if any(value != values[0] for value in values):
            rows[name] = [repr(run.settings[name]) if run.settings else _NONE for run in runs]
    return rows


def _results(findings: Findings) -> Rows:
    runs = findings.runs
    rows: Rows = {}

    def add(label: str, form: Callable[[float], str], values: Sequence[float]) -> None:
        cells = [form(x) if math.isfinite(x) else _NONE for x in values]
        if set(cells) != {_NONE}:
            rows[label] = cells

    def held_out(name: str) -> list[float]:
        return [c.last(name) if c else math.nan for c in map(findings.held_out, runs)]

    def over_layers(name: str, join: Join) -> list[float]:
        routers = [[r for stack in run.routers.values() for r in stack.values()] for run in runs]
        return [float(join.of([r.last(name) for r in rs])) if rs else math.nan for rs in routers]

    add("Held-out neg. log perplexity [nats]", rounded, held_out(QUALITY))
    add("Held-out perplexity", perplexity, held_out(QUALITY))
    add("Held-out token accuracy", percent, held_out("accuracy"))
    content = "Held-out without sentinels and EOS: "
    add(f"{content}neg. log perplexity [nats]", rounded, held_out(CONTENT_QUALITY))
    add(f"{content}token accuracy", percent, held_out("content_accuracy"))
    for name in findings.generated:
        add(f"Generated text: {name.removeprefix(GENERATED)}", rounded, held_out(name))
    add("Training neg. log perplexity [nats]", rounded, [r.train.last(QUALITY) for r in runs])
    add("Steps", "{:,}".format, [run.last_step for run in runs])
    add("Training time", findings.duration, [run.seconds for run in runs])
    speeds = [run.train.get("tokens_per_second") for run in runs]
    medians = [statistics.median([*x[x > 0]] or [math.nan]) for x in speeds]
    add("Throughput, median [tokens/s]", "{:,.0f}".format, medians)
    add("Bad steps skipped", "{:,}".format, [run.skipped_steps or math.nan for run in runs])
    for name, statistic in RECORDED_STATISTICS.items():
        if statistic.chart:
            label = f"{statistic.chart.title}, {statistic.join} of layers"
            unit = " [nats]" if statistic.unit == "nats" else ""
            add(f"{label}{unit}", statistic.text, over_layers(name, statistic.join))
    return rows
