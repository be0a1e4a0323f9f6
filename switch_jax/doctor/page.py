"""The page of what was found: what has failed, speeds beside those planned, and all checks."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from jax.sharding import Mesh
from matplotlib.axes import Axes

from switch_jax.doctor.checks import Finding, Verdict
from switch_jax.reports.drawing import COLOURS, GREY, Chart
from switch_jax.reports.template import render_template
from switch_jax.runtime.processes import versions
from switch_jax.units import counted

_HEIGHT = 0.38  # of a bar


def render(mesh: Mesh, findings: Sequence[Finding]) -> str:
    """The whole page; page.html is its template."""
    failed = [finding for finding in findings if finding.verdict == Verdict.FAILED]
    kind, shape = mesh.devices.flat[0].device_kind, " x ".join(map(str, mesh.devices.shape))
    return render_template(
        Path(__file__).parent / "page.html",
        machine=f"{counted(mesh.size, 'device')} of {kind}, mesh {shape}",
        versions=", ".join(f"{name} {version}" for name, version in versions().items()),
        verdict=summary(findings),
        failed=failed,
        findings=findings,
        charts=[*_charts(findings)],
    )


def summary(findings: Sequence[Finding]) -> str:
    """How many of the checks have failed, in words."""
    failed = sum(finding.verdict == Verdict.FAILED for finding in findings)
    done = sum(finding.verdict != Verdict.SKIPPED for finding in findings)
    return (
        f"{failed} of {counted(done, 'check')} failed"
        if failed
        else f"{counted(done, 'check')} passed"
    )


def _charts(findings: Sequence[Finding]) -> list[Chart]:
    """Measured beside planned: each step by part, and the exchanges."""
    charts = []
    for finding in findings:
        if parts := finding.numbers.get("parts"):
            planned = finding.numbers["planned_parts"]
            bars = {part: (1e3 * s, 1e3 * planned.get(part, 0.0)) for part, s in parts.items()}
            caption = "Milliseconds of each part, measured and planned (on CPUs: what its products"
            caption += " and its memory alone would take)."
            draw = functools.partial(_bars, bars, "ms")
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
        draw = functools.partial(_bars, rates, "GB/s")
        charts.append(Chart("Memory and exchanges", caption, draw, wide=True))
    return charts


def _bars(bars: Mapping[str, tuple[float, float]], unit: str, axes: Axes) -> None:
    """For each name two bars: measured, and planned where that is not 0."""
    columns = zip(
        ("measured", "planned"), (COLOURS[0], GREY), zip(*bars.values(), strict=True), strict=True
    )
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
