"""Draws docs/demo.png: the main charts of a report, as a picture 1800 pixels wide.

    make demo
    python benchmarks/demo_picture.py runs/demo/switch runs/demo/dense docs/demo.png

One of the runs is sparse.
"""

import argparse
import dataclasses

from drawing import canvas

from switch_jax.reports import page
from switch_jax.reports.findings import read_findings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="of the runs, one sparse run")
    parser.add_argument("output", help="file to draw")
    args = parser.parse_args()
    findings = read_findings(args.folders)
    sections = list(page.sections(findings).items())
    shown = [*dict(sections)["Held-out quality"][:2], *dict(sections)["Training curves"][:1]]
    of_routers = [section for section in sections if ": " in section[0]]
    if len(of_routers) != 2:
        raise SystemExit("the picture is of one sparse run, beside dense ones")
    (title, loads), (_, others) = of_routers
    run = title.partition(": ")[2]
    for chart in (loads[0], loads[-1], others[0]):
        shown.append(dataclasses.replace(chart, title=f"{run}: {chart.title}"))

    text = " ".join(c.sentence for c in findings.comparisons)
    figure, axes = canvas(findings.title, text, len(shown))
    for ax, chart in zip(axes, shown, strict=True):
        chart.draw(ax)
        ax.set_title(chart.title)
    figure.savefig(args.output, metadata={"Description": text})


if __name__ == "__main__":
    main()
