"""The numbers of a report as tables."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

import numpy as np

from switch_jax.reports.comparison import Comparison, Reached, first_reached
from switch_jax.reports.configurations import Configuration, config_fields
from switch_jax.reports.downstream import Measure, Scores, Setting
from switch_jax.reports.findings import Findings
from switch_jax.reports.records import CONTENT_QUALITY, QUALITY, preferred_task
from switch_jax.reports.runs import Origin, Run
from switch_jax.reports.series import Series
from switch_jax.reports.verdict import verdicts
from switch_jax.units import (
    aligned,
    as_text,
    count,
    duration,
    percent,
    perplexity,
    printable,
    rounded,
)

Rows = list[tuple[str, list[str]]]  # what, and a text for each column
Form = Callable[[float], str]
_NONE = "–"  # in a cell: no run has such a number
_whole: Form = "{:,.0f}".format


@dataclasses.dataclass(frozen=True)
class Table:
    """Rows under the heads of their columns; false without rows."""

    head: Sequence[str]
    rows: Rows

    def __bool__(self) -> bool:
        return bool(self.rows)

    def __str__(self) -> str:
        """As plain text with aligned columns."""
        table = [("", *self.head), *((label, *cells) for label, cells in self.rows)]
        return "\n".join(aligned(table, right=range(1, len(self.head) + 1)))


def text_lines(findings: Findings) -> list[str]:
    """What the terminal gets: tables, what they say in words, and the notes."""
    names = [run.name for run in findings.runs]
    tables = [
        Table(names, [*final_numbers(findings).rows, *downstream_numbers(findings).rows]),
        downstream_over_seeds(findings),
        speedups(findings),
        threshold(findings),
        distillation(findings),
    ]
    parts = [*(str(table) for table in tables if table), *verdicts(findings.comparisons)]
    notes = [f"note: {note}" for note in findings.notes]
    return ["\n\n".join(parts), *notes]


def final_numbers(findings: Findings) -> Table:
    """The last value of the main numbers of each run; further ones that none has are left out."""
    runs = findings.runs
    curves = [findings.held_out(run) for run in runs]
    throughputs = [run.train.median("tokens_per_second") for run in runs]
    planned = [run.facts.get("train_steps") for run in runs]
    content = "Held-out without sentinels and EOS"
    skipping = any(run.skipped_steps for run in runs)

    def held_out(name: str, form: Form) -> list[str]:
        always = name in (QUALITY, "accuracy")
        cells = [form(c.last(name)) if c and name in c.values else "" for c in curves]
        missing = "not yet" if always or any(cells) else ""
        return [cell if c else missing for cell, c in zip(cells, curves, strict=True)]

    def routing(name: str, form: Form) -> list[str]:
        last = [[layer.statistics.last(name) for layer in run.layers] for run in runs]
        return [form(float(np.mean(values))) if values else "" for values in last]

    rows = {
        "Held-out task": ["" if findings.task else run.own_task or "" for run in runs],
        "Held-out neg. log perplexity [nats]": held_out(QUALITY, rounded),
        "Held-out perplexity": held_out(QUALITY, perplexity),
        "Held-out token accuracy [%]": held_out("accuracy", percent),
        f"{content}: neg. log perplexity [nats]": held_out(CONTENT_QUALITY, rounded),
        f"{content}: token accuracy [%]": held_out("content_accuracy", percent),
        "Training neg. log perplexity [nats]": [rounded(run.train.last(QUALITY)) for run in runs],
        "Steps": [
            f"{run.last_step:,} of {steps:,}" if steps else f"{run.last_step:,}"
            for run, steps in zip(runs, planned, strict=True)
        ],
        "Training time": [duration(run.seconds) for run in runs],
        "Throughput, median [tokens/s]": [
            count(x) if math.isfinite(x) else "" for x in throughputs
        ],
        "Parameters": [as_text(run.facts.get("parameters")) for run in runs],
        "Experts per sparse layer (0 = dense)": [
            as_text(run.facts.get("num_experts")) for run in runs
        ],
        "Layers with experts": [_sparse_layers(run) for run in runs],
        "Router of the encoder": [
            str(run.facts.get("encoder_router_type", "")) if run.sparse else "" for run in runs
        ],
        "Steps skipped as bad": [f"{run.skipped_steps:,}" if skipping else "" for run in runs],
        "Tokens dropped, mean of layers": routing("dropped", percent),
        "Router entropy, mean of layers [nats]": routing("entropy", rounded),
    }
    return Table(
        [run.name for run in runs], [(k, cells) for k, cells in rows.items() if any(cells)]
    )


def _sparse_layers(run: Run) -> str:
    """How many layers of each stack, as '6 + 6'; empty in dense models and earlier versions."""
    by_stack = run.facts.get("sparse_layers", {}).values()
    return " + ".join(str(len(layers)) for layers in by_stack) if any(by_stack) else ""


def speedups(findings: Findings) -> Table:
    """A row for each comparison; a cell is mean and range over seeds."""
    columns: dict[str, tuple[Callable[[Comparison], float], Form]] = {
        "reaches the dense run's final value at step": (lambda pair: pair.reached.step, _whole),
        "speed-up in steps": (lambda pair: pair.step_speedup, "{:.2f}".format),
        "speed-up in time": (lambda pair: pair.time_speedup, "{:.2f}".format),
        "lead at the end [nats]": (lambda pair: pair.final_lead, "{:+.3f}".format),
        "without sentinels and EOS": (lambda pair: pair.content_lead, "{:+.3f}".format),
        "ahead from step": (
            lambda pair: pair.in_front_from if pair.final_lead > 0 else math.nan,
            _whole,
        ),
    }
    several_dense = len({c.dense.label for c in findings.comparisons}) > 1
    rows = []
    for comparison in findings.comparisons:
        seeds = f" ({comparison.in_number})" if len(comparison.pairs) > 1 else ""
        against = f" against {comparison.dense.label}" if several_dense else ""
        cells = [
            _over_seeds(map(value, comparison.pairs), form) for value, form in columns.values()
        ]
        rows.append((f"{comparison.sparse.label}{seeds}{against}", cells))
    return Table(list(columns), rows)


def threshold(findings: Findings) -> Table:
    """When each configuration first has a held-out value: the "time to quality" of Table 1.

    A cell is mean and range over seeds.
    """
    target = findings.threshold
    if target is None:
        return Table([], [])

    def reached(curve: Series | None) -> Reached:
        if curve is None:
            return Reached()
        if curve.step[0] == 0 and curve.get(QUALITY)[0] >= target:
            return Reached(0.0, 0.0)
        return first_reached(curve, target)

    rows = []
    for c in findings.configurations:
        found = [reached(findings.held_out(run)) for run in c.runs]
        bound = "at most " * any(r.at_first for r in found)
        cells = [
            _over_seeds([r.step for r in found], _whole),
            _over_seeds([r.seconds for r in found], duration),
        ]
        rows.append((c.title, [bound * (cell != _NONE) + cell for cell in cells]))
    return Table([f"reaches {target:g} at step", "after a training time of"], rows)


def distillation(findings: Findings) -> Table:
    """How much of its teacher's gain each student keeps (section 4.2; Tables 6 to 8).

    The share is (student - baseline) / (teacher - baseline), of the final held-out values, means
    over seeds. The baseline is a configuration as large as the student that had no teacher. A row
    is left out where baseline or teacher are not in the report.
    """
    found = findings.configurations

    def teacher_of(c: Configuration) -> str | None:
        """The name of the teacher's run; its checkpoint is RUN/checkpoints/STEP."""
        checkpoint = c.runs[0].facts.get("teacher_checkpoint")
        return PurePath(checkpoint).parts[-3] if checkpoint else None

    def final(c: Configuration) -> float:
        curves = [curve for run in c.runs if (curve := run.evals.get(findings.task or ""))]
        return float(np.mean([curve.last(QUALITY) for curve in curves])) if curves else math.nan

    rows = []
    for student in found:
        name, size = teacher_of(student), (student.parameters, student.num_experts)
        teachers = [c for c in found if name in [run.name for run in c.runs]]
        baselines = [
            c for c in found if not teacher_of(c) and (c.parameters, c.num_experts) == size
        ]
        if teachers and baselines:
            value, baseline, teacher = map(final, (student, baselines[0], teachers[0]))
            gain = teacher - baseline
            share = 100 * (value - baseline) / gain if gain else math.nan
            kept = f"{share:.0f} %" if math.isfinite(share) else _NONE
            rows.append((student.title, [*map(rounded, (value, baseline, teacher)), kept]))
    return Table(
        ["held-out", "without a teacher", "the teacher", "of the teacher's gain kept"], rows
    )


def downstream_numbers(findings: Findings) -> Table:
    """Where the runs started from, and each metric at the best checkpoint and at the last.

    Beside them is the majority baseline, where a run has one.
    """
    runs, task = findings.runs, findings.upstream_task

    def quality(origin: Origin | None) -> str:
        if origin is None:
            return ""
        own = task or preferred_task(origin.quality) or ""
        if own not in origin.quality:
            return "not known"
        return rounded(origin.quality[own]) + ("" if task else f" of {own}")

    rows: Rows = []
    if any(run.origin for run in runs):
        origins = [run.origin for run in runs]
        started = [f"{origin.name}, step {origin.step:,}" if origin else "" for origin in origins]
        rows = [
            ("Started from", started),
            ("Upstream neg. log perplexity [nats]", list(map(quality, origins))),
        ]
    for m in findings.measures:
        for which in ("best", "last", "majority baseline"):
            cells = [_score(m, run.scores.get(m.setting), which) for run in runs]
            if any(cells):
                rows.append((f"{m.title}: {m.metric}{m.unit}, {which}", cells))
    return Table([run.name for run in runs], rows)


def _score(m: Measure, scores: Scores | None, which: str) -> str:
    if scores is None or m.metric not in scores.values:
        return ""
    i = scores.best if which == "best" else -1
    value = scores.values[m.metric][i]
    if which == "majority baseline":
        if (value := scores.majority_baseline.get(m.metric)) is None:
            return ""
    text = percent(value / 100) if m.unit else rounded(value)
    return f"{text} at step {scores.step[i]:,}" if which == "best" else text


def downstream_over_seeds(findings: Findings) -> Table:
    """Upstream quality and best scores, mean ± standard deviation over the seeds.

    No rows where no configuration has several seeds, or no run has scores.
    """
    found, task = findings.configurations, findings.upstream_task
    if not findings.measures or all(len(c.runs) == 1 for c in found):
        return Table([], [])

    def upstream(run: Run) -> float:
        return run.origin.quality.get(task or "", math.nan) if run.origin else math.nan

    def best(setting: Setting, run: Run) -> float:
        return run.scores[setting].best_score if setting in run.scores else math.nan

    numbers: list[tuple[str, Callable[[Run], float], Form]] = [
        ("Upstream neg. log perplexity [nats]", upstream, rounded)
    ] * (task is not None)
    numbers += [
        (
            f"{m.title}: best {m.metric}{m.unit}",
            functools.partial(best, m.setting),
            "{:.2f}".format if m.unit else rounded,
        )
        for m in findings.measures
        if m.first
    ]
    rows = [
        (what, [_over_seeds(map(value, c.runs), form, deviation=True) for c in found])
        for what, value, form in numbers
    ]
    return Table([c.title for c in found], rows)


def _over_seeds(of_seeds: Iterable[float], form: Form, *, deviation: bool = False) -> str:
    """Mean and range, or standard deviation, of the numbers; of how many seeds, if not of all."""
    values = list(of_seeds)
    known = [x for x in values if math.isfinite(x)]
    if not known:
        return _NONE
    text, low, high = (form(float(x)) for x in (np.mean(known), min(known), max(known)))
    if deviation and len(known) > 1:
        text += f" ± {form(float(np.std(known, ddof=1)))}"
    elif low != high:
        text += f" ({low} to {high})"
    return text if len(known) == len(values) else f"{text}, {len(known)} of {len(values)} seeds"


def numbers_by_task(findings: Findings) -> Table:
    """Final held-out negative log perplexity and accuracy by task; no rows of one task alone."""
    runs = findings.runs

    def cell(curve: Series | None) -> str:
        if curve is None:
            return ""
        return f"{rounded(curve.last(QUALITY))} ({percent(curve.last('accuracy'))})"

    tasks = sorted({task for run in runs for task in run.evals})
    rows = [(task, [cell(run.evals.get(task)) for run in runs]) for task in tasks]
    return Table([run.name for run in runs], rows if set(tasks) - {findings.task} else [])


def facts(findings: Findings) -> Table:
    """The folder, and all fields of run.json."""
    runs = findings.runs
    keys = dict.fromkeys(key for run in runs for key in run.facts if key != "name")

    def cell(run: Run, key: str) -> str:
        return "none" if run.facts.get(key, "") is None else as_text(run.facts.get(key))

    rows = [(key, [cell(run, key) for run in runs]) for key in keys]
    folders = ("folder", [printable(run.folder) for run in runs])
    return Table([run.name for run in runs], [folders, *rows])


def config_differences(findings: Findings) -> Table:
    """The fields, as "ModelConfig.num_experts", whose values differ between the runs.

    Left out are the folders, and fields of other versions that only some have.
    """
    configs = [config_fields(run.config) for run in findings.runs]
    known = [set(config) for config in configs if config]
    fields = set.intersection(*known) - {"RunConfig.model_dir"} if known else set()
    rows = [(name, [config.get(name, "") for config in configs]) for name in sorted(fields)]
    differing = [(name, values) for name, values in rows if len({*values} - {""}) > 1]
    return Table([run.name for run in findings.runs], differing)
