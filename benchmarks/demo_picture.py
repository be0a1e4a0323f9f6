"""Draws docs/demo.png: the main charts of a report, as a picture 1800 pixels wide.

make demo
python benchmarks/demo_picture.py runs/demo/switch runs/demo/dense docs/demo.png
"""

import dataclasses
import sys
import textwrap

import matplotlib
from matplotlib.figure import Figure

from switch_jax.reports import drawing, page
from switch_jax.reports.findings import read_findings

WIDTH, ROW = 12.0, 2.9  # inches, of the picture and of a row of charts


def main(*arguments: str) -> None:
    *folders, output = arguments
    findings = read_findings(folders)
    sections = list(page.sections(findings).items())
    shown = [*dict(sections)["Held-out quality"][:2], *dict(sections)["Training curves"][:1]]
    (title, loads), (_, others) = (section for section in sections if ": " in section[0])
    run = title.partition(": ")[2]
    for chart in (loads[0], loads[-1], others[0]):
        shown.append(dataclasses.replace(chart, title=f"{run}: {chart.title}"))

    text = textwrap.fill(" ".join(c.sentence for c in findings.comparisons), 150)
    head = 0.5 + 0.2 * len(text.splitlines())
    style = {"axes.titlesize": 10, "axes.titlelocation": "left", "axes.titleweight": "bold"}
    with matplotlib.rc_context({**drawing.STYLE, **style}):
        figure = Figure(figsize=(WIDTH, head + 2 * ROW), layout="constrained")
        halves = figure.add_gridspec(2, 1, height_ratios=[head, 2 * ROW])
        top, body = figure.add_subfigure(halves[0]), figure.add_subfigure(halves[1])
        top.text(0.01, 1 - 0.12 / head, findings.title, va="top", fontsize=13, weight="bold")
        top.text(0.01, 1 - 0.4 / head, text, va="top", fontsize=10, linespacing=1.35)
        grid = body.add_gridspec(2, 3)
        # A subfigure each: one chart's long labels must not push the others about.
        for i, chart in enumerate(shown):
            ax = body.add_subfigure(grid[i // 3, i % 3]).add_subplot()
            chart.draw(ax)
            ax.set_title(chart.title, pad=10)  # above the highest label
        figure.savefig(output, dpi=1800 / WIDTH)


if __name__ == "__main__":
    main(*sys.argv[1:])
