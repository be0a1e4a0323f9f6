"""The numbers of a report as lines of text."""

from switch_jax.reports.distillation import HEADS, distillation_table
from switch_jax.reports.downstream import rows_over_seeds, score_rows, upstream_rows
from switch_jax.reports.findings import Findings
from switch_jax.reports.summary import (
    comparison_table,
    final_numbers,
    text_table,
    threshold_table,
)
from switch_jax.reports.verdict import verdicts


def text_lines(findings: Findings) -> list[str]:
    """The tables, what they say in words, and the notes."""
    found, task, scores = findings.configurations, findings.task, findings.downstream
    numbers = [*final_numbers(findings.runs, task), *upstream_rows(scores), *score_rows(scores)]
    tables = [text_table([run.name for run in findings.runs], numbers)]
    if means := rows_over_seeds(found, scores):
        tables.append(text_table([configuration.title for configuration in found], means))
    if findings.comparisons:
        tables.append(text_table(*comparison_table(findings.comparisons)))
    if findings.threshold is not None:
        tables.append(text_table(*threshold_table(found, task, findings.threshold)))
    if students := distillation_table(found, task):
        tables.append(text_table(HEADS, students))
    lines = "\n\n".join([*tables, *verdicts(findings.comparisons)]).splitlines()
    return [*lines, *(f"note: {note}" for note in findings.notes)]
