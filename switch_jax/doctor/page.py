"""The page of what was found: what has failed, speeds beside those planned, and all checks."""

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes

from switch_jax.doctor.checks import Finding, Verdict
from switch_jax.reports.drawing import COLOURS, GREY, Chart
from switch_jax.reports.template import render_template
from switch_jax.units import counted

_HEIGHT = 0.38  # of a bar


def render(results: Mapping[str, Any], findings: Sequence[Finding]) -> str:
    """The whole page; page.html is its template.

    Args:
      results: the file beside it, as `results.write_results` writes it.
      findings: of all checks.
    """
    failed = [finding for finding in findings if finding.verdict == Verdict.FAILED]
    mesh, kind = results["mesh"], results["device_kind"]
    devices, shape = math.prod(mesh.values()), " x ".join(map(str, mesh.values()))
    return render_template(
        Path(__file__).parent / "page.html",
        machine=f"{counted(devices, 'device')} of {kind}, mesh {shape}",
        versions=", ".join(f"{name} {version}" for name, version in results["versions"].items()),
        results=results,
        verdict=summary(findings),
        failed=failed,
        findings=findings,
        charts=_charts(findings, "at least" if kind == "cpu" else "planned"),
    )


def summary(findings: Sequence[Finding]) -> str:
    """How many of the checks have failed, in words."""
    failed = sum(finding.verdict == Verdict.FAILED for finding in findings)
    done = sum(finding.verdict != Verdict.SKIPPED for finding in findings)
    checks = counted(done, "check")
    return f"{failed} of {checks} failed" if failed else f"{checks} passed"


def _charts(findings: Sequence[Finding], planned_label: str) -> list[Chart]:
    """Measured beside planned: each step by part, and the exchanges."""
    charts = []
    for finding in findings:
        if parts := finding.numbers.get("parts"):
            planned = finding.numbers["planned_parts"]
            bars = {part: (1e3 * s, 1e3 * planned.get(part, 0.0)) for part, s in parts.items()}
            caption = "Milliseconds of each part, measured and planned. Of CPUs nothing is planned:"
            caption += " what its products or its memory alone take at least is beside it."
            draw = functools.partial(_bars, bars, "ms", planned_label)
            charts.append(Chart(f"{finding.name.capitalize()}, by part", caption, draw, wide=True))
    rates = {
        finding.name: (
            finding.numbers["bytes_per_second"] / 1e9,
            finding.numbers.get("planned_bytes_per_second", 0.0) / 1e9,
        )
        for finding in findings
        if "bytes_per_second" in finding.numbers
    }
    if rates:
        caption = "GB a second of each device, and what plans assume, where they assume something."
        draw = functools.partial(_bars, rates, "GB/s", "planned")
        charts.append(Chart("Memory and exchanges", caption, draw, wide=True))
    return charts


def _bars(
    bars: Mapping[str, tuple[float, float]], unit: str, planned_label: str, axes: Axes
) -> None:
    """For each name two bars: measured, and planned where that is not 0."""
    measured, planned = zip(*bars.values(), strict=True)
    columns = (("measured", COLOURS[0], measured), (planned_label, GREY, planned))
    shown = [column for column in columns if any(column[2])]
    for offset, (label, colour, values) in enumerate(shown):
        for i, value in enumerate(values):
            y = i + (offset - (len(shown) - 1) / 2) * _HEIGHT
            axes.barh(y, value, _HEIGHT, color=colour, label=label if i == 0 else None)
            if value:
                axes.text(value, y, f" {value:.3g}", va="center", fontsize=8, color=colour)
    axes.set_yticks(range(len(bars)), list(bars))
    axes.set_ylim(len(bars) - 0.5, -0.5)
    axes.margins(x=0.1)
    axes.set_xlabel(unit)
    axes.set_axisbelow(True)
    axes.grid(visible=False, axis="y")
    axes.legend(loc="lower right", frameon=False)
