"""The numbers of a report as tables."""

import math
from collections.abc import Callable, Sequence

import numpy as np

from switch_jax.reports.comparison import (
    Comparison,
    ComparisonOverSeeds,
    first_reached,
    in_number,
)
from switch_jax.reports.config_fields import config_fields
from switch_jax.reports.configurations import Configuration
from switch_jax.reports.held_out import CONTENT_QUALITY, QUALITY, own_held_out, own_task
from switch_jax.reports.runs import Run, Series
from switch_jax.units import aligned, as_text, count, duration, percent, perplexity, rounded

Rows = list[tuple[str, list[str]]]
_NONE = "–"  # in a cell: no run has such a number


def final_numbers(runs: Sequence[Run], task: str | None) -> Rows:
    """The last value of the main numbers: (what, one text per run)."""

    def quality(run: Run, name: str, form: Callable[[float], str]) -> str:
        curve = own_held_out(run, task)
        if curve is None:
            return "not yet"
        return form(curve.last(name)) if name in curve.values else ""

    def steps(run: Run) -> str:
        planned = run.facts.get("train_steps")
        return f"{run.last_step:,}" + (f" of {planned:,}" if planned else "")

    def throughput(run: Run) -> str:
        median = run.train.median("tokens_per_second")
        return count(median) if math.isfinite(median) else ""

    def routing(run: Run, name: str, form: Callable[[float], str]) -> str:
        last = [getattr(layer, name)[-1] for layer in run.layers]
        return form(float(np.mean(last))) if last else ""

    cells: dict[str, Callable[[Run], str]] = {}
    if task is None and any(run.evals for run in runs):
        cells["Held-out task"] = lambda run: own_task(run, task) or ""
    cells |= {
        "Held-out neg. log perplexity [nats]": lambda run: quality(run, QUALITY, rounded),
        "Held-out perplexity": lambda run: quality(run, QUALITY, perplexity),
        "Held-out token accuracy [%]": lambda run: quality(run, "accuracy", percent),
    }
    curves = [own_held_out(run, task) for run in runs]
    if any(CONTENT_QUALITY in curve.values for curve in curves if curve):
        cells |= {
            "Held-out without sentinels and EOS: neg. log perplexity [nats]": (
                lambda run: quality(run, CONTENT_QUALITY, rounded)
            ),
            "Held-out without sentinels and EOS: token accuracy [%]": (
                lambda run: quality(run, "content_accuracy", percent)
            ),
        }
    cells |= {
        "Training neg. log perplexity [nats]": lambda run: rounded(run.train.last(QUALITY)),
        "Steps": steps,
        "Training time": lambda run: duration(run.seconds),
    }
    if any(math.isfinite(run.train.median("tokens_per_second")) for run in runs):
        cells["Throughput, median [tokens/s]"] = throughput
    cells |= {
        "Parameters": lambda run: as_text(run.facts.get("parameters")),
        "Experts per sparse layer (0 = dense)": lambda run: as_text(run.facts.get("num_experts")),
    }
    if any(run.skipped_steps for run in runs):
        cells["Steps skipped as bad"] = lambda run: f"{run.skipped_steps:,}"
    if any(run.layers for run in runs):
        cells |= {
            "Tokens dropped, mean of layers": lambda run: routing(run, "dropped", percent),
            "Router entropy, mean of layers [nats]": lambda run: routing(run, "entropy", rounded),
        }
    return [(what, [cell(run) for run in runs]) for what, cell in cells.items()]


def comparison_table(comparisons: Sequence[ComparisonOverSeeds]) -> tuple[list[str], Rows]:
    """The columns' heads, and a row for each comparison; a cell is mean and range over seeds."""
    columns: dict[str, tuple[Callable[[Comparison], float | None], Callable[[float], str]]] = {
        "reaches the dense run's final value at step": (lambda pair: pair.step, "{:,.0f}".format),
        "speed-up in steps": (lambda pair: pair.step_speedup, "{:.2f}".format),
        "speed-up in time": (lambda pair: pair.time_speedup, "{:.2f}".format),
        "lead at the end [nats]": (lambda pair: pair.final_lead, "{:+.3f}".format),
        "without sentinels and EOS": (lambda pair: pair.content_lead, "{:+.3f}".format),
        "ahead from step": (
            lambda pair: pair.in_front_from if pair.final_lead > 0 else None,
            "{:,.0f}".format,
        ),
    }
    several_dense = len({c.dense.label for c in comparisons}) > 1
    rows = []
    for comparison in comparisons:
        label = comparison.sparse.label
        if len(comparison.pairs) > 1:
            label += f" ({in_number(comparison.pairs)})"
        if several_dense:
            label += f" against {comparison.dense.label}"
        cells = [
            _over_seeds([value(pair) for pair in comparison.pairs], form)
            for value, form in columns.values()
        ]
        rows.append((label, cells))
    return list(columns), rows


def threshold_table(
    found: Sequence[Configuration], task: str | None, threshold: float
) -> tuple[list[str], Rows]:
    """When each configuration first has a held-out value: the "time to quality" of Table 1.

    Between two evaluations a curve is taken as straight.

    Args:
      found: the configurations.
      task: the held-out task.
      threshold: negative log perplexity, nats.

    Returns:
      The columns' heads, and a row for each configuration; a cell is mean and range over seeds.
    """
    rows = []
    for configuration in found:
        curves = [own_held_out(run, task) for run in configuration.runs]
        reached = [None if c is None else _reached(c, threshold) for c in curves]
        bound = "at most " if any(r is not None and r[2] for r in reached) else ""
        cells = [
            _over_seeds([r[i] if r is not None else None for r in reached], form)
            for i, form in enumerate(("{:,.0f}".format, duration))
        ]
        rows.append((configuration.title, [bound * (cell != _NONE) + cell for cell in cells]))
    return [f"reaches {threshold:g} at step", "after a training time of"], rows


def _reached(curve: Series, threshold: float) -> tuple[float, float, bool] | None:
    """As `first_reached`; step 0, if the run begins with such a value."""
    if curve.step[0] == 0 and curve.get(QUALITY)[0] >= threshold:
        return 0.0, 0.0, False
    return first_reached(curve, threshold)


def _over_seeds(values: Sequence[float | None], form: Callable[[float], str]) -> str:
    """Mean and range of the numbers that there are; of how many seeds, if some have none."""
    known = [x for x in values if x is not None and math.isfinite(x)]
    if not known:
        return _NONE
    mean, low, high = (form(float(x)) for x in (np.mean(known), min(known), max(known)))
    text = mean if low == high else f"{mean} ({low} to {high})"
    return text if len(known) == len(values) else f"{text}, {len(known)} of {len(values)} seeds"


def mean_and_deviation(values: Sequence[float], form: Callable[[float], str]) -> str:
    """Mean ± standard deviation of the numbers that there are; of how many seeds, likewise."""
    known = [x for x in values if math.isfinite(x)]
    if not known:
        return _NONE
    text = form(float(np.mean(known)))
    if len(known) > 1:
        text += f" ± {form(float(np.std(known, ddof=1)))}"
    return text if len(known) == len(values) else f"{text}, {len(known)} of {len(values)} seeds"


def task_numbers(runs: Sequence[Run]) -> Rows:
    """Final held-out negative log perplexity and accuracy by task."""

    def cell(run: Run, task: str) -> str:
        if task not in run.evals:
            return ""
        curve = run.evals[task]
        return f"{rounded(curve.last(QUALITY))} ({percent(curve.last('accuracy'))})"

    tasks = sorted({task for run in runs for task in run.evals})
    return [(task, [cell(run, task) for run in runs]) for task in tasks]


def facts_table(runs: Sequence[Run]) -> Rows:
    """All fields of run.json."""
    keys = dict.fromkeys(key for run in runs for key in run.facts if key != "name")

    def cell(run: Run, key: str) -> str:
        return "none" if run.facts.get(key, "") is None else as_text(run.facts.get(key))

    return [(key, [cell(run, key) for run in runs]) for key in keys]


def config_differences(runs: Sequence[Run]) -> Rows:
    """The fields, as "ModelConfig.num_experts", whose values differ between the runs.

    Left out are the folders, and fields of other versions that only some have.
    """
    configs = [config_fields(run.config) for run in runs]
    known = [config for config in configs if config]
    if not known:
        return []
    fields = set.intersection(*map(set, known)) - {"RunConfig.model_dir"}
    rows = [(name, [config.get(name, "") for config in configs]) for name in sorted(fields)]
    return [(name, values) for name, values in rows if len({*values} - {""}) > 1]


def text_table(head: Sequence[str], rows: Rows) -> str:
    """The rows as plain text with aligned columns, each under its head."""
    table = [("", *head), *((label, *cells) for label, cells in rows)]
    return "\n".join(aligned(table, right=range(1, len(head) + 1)))
