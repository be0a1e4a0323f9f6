"""The report as one HTML page; page.html is its template."""

from pathlib import Path

import numpy as np

from switch_jax.reports import tables
from switch_jax.reports.configurations import Configuration
from switch_jax.reports.findings import Findings
from switch_jax.reports.pictures import sections
from switch_jax.reports.records import QUALITY
from switch_jax.reports.template import render_template
from switch_jax.reports.verdict import verdicts
from switch_jax.units import duration, perplexity, rounded


def render(findings: Findings) -> str:
    """The whole page."""
    first_counted = [
        run
        for c in findings.configurations
        if (run := next((run for run in c.runs if run.expert_tokens), None))
    ]
    return render_template(
        Path(__file__).parent / "page.html",
        findings=findings,
        tables=tables,
        verdicts=verdicts(findings.comparisons),
        cards=[_card(findings, configuration) for configuration in findings.configurations],
        sections=sections(findings),
        with_expert_tokens=first_counted,
    )


def _card(findings: Findings, configuration: Configuration) -> tuple[Configuration, str, str]:
    """What stands first about a configuration: its held-out value, and what that is."""
    runs = configuration.runs
    going = [run for run in runs if run.unfinished]
    state = "".join(
        f" {'Still' if len(runs) == 1 else f'{run.name} is still'} at step {run.last_step:,} of "
        f"{run.facts['train_steps']:,}."
        for run in going
    )
    curves = [curve for run in runs if (curve := findings.held_out(run))]
    if not curves:
        text = "Not evaluated on held-out text yet."
        return configuration, "–", text + state
    step = max(curve.step[-1] for curve in curves)
    furthest = [curve for curve in curves if curve.step[-1] == step]
    last = [curve.last(QUALITY) for curve in furthest]
    mean = float(np.mean(last))
    text = (
        f"{'latest' if len(going) == len(runs) else 'final'} held-out neg. log perplexity "
        f"[nats] (perplexity {perplexity(mean)}) at step {step:,}, "
        f"after {duration(float(np.mean([curve.seconds[-1] for curve in furthest])))}."
    )
    if findings.task is None:
        text += f" Of {runs[0].own_task}, unlike other runs."
    if len(last) > 1:
        text += f" Mean of {len(last)} seeds, {rounded(min(last))} to {rounded(max(last))}."
    return configuration, rounded(mean), text + state
