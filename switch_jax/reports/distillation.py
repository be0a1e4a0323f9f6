"""How much of a teacher's gain its students keep (section 4.2; Tables 6 to 8)."""

import math
from collections.abc import Sequence
from pathlib import PurePath

import numpy as np

from switch_jax.reports.configurations import Configuration
from switch_jax.reports.held_out import QUALITY, held_out
from switch_jax.reports.summary import Rows
from switch_jax.units import rounded

HEADS = ["held-out", "without a teacher", "the teacher", "of the teacher's gain kept"]


def distillation_table(found: Sequence[Configuration], task: str | None) -> Rows:
    """A row for each configuration with a teacher: its columns are `HEADS`.

    The share is (student - baseline) / (teacher - baseline), of the final held-out values, means
    over seeds. The baseline is a configuration as large as the student that had no teacher. A row
    is left out where baseline or teacher are not in the report.
    """
    rows: Rows = []
    for student in found:
        teacher_name = _teacher(student)
        teachers = [c for c in found for run in c.runs if run.name == teacher_name]
        baselines = [
            c
            for c in found
            if _teacher(c) is None
            and (c.parameters, c.num_experts) == (student.parameters, student.num_experts)
        ]
        if teacher_name is None or not teachers or not baselines:
            continue
        value, baseline, teacher = (_final(c, task) for c in (student, baselines[0], teachers[0]))
        gain = teacher - baseline
        share = 100 * (value - baseline) / gain if gain else math.nan
        kept = f"{share:.0f} %" if math.isfinite(share) else "–"
        rows.append((student.title, [*map(rounded, (value, baseline, teacher)), kept]))
    return rows


def _teacher(configuration: Configuration) -> str | None:
    """The name of the teacher's run; its checkpoint is RUN/checkpoints/STEP."""
    checkpoint = configuration.runs[0].facts.get("teacher_checkpoint")
    return PurePath(checkpoint).parts[-3] if checkpoint else None


def _final(configuration: Configuration, task: str | None) -> float:
    """The mean of the runs' last held-out values; NaN where there is none."""
    curves = [curve for run in configuration.runs if (curve := held_out(run, task)) is not None]
    return float(np.mean([curve.last(QUALITY) for curve in curves])) if curves else math.nan
