"""`switch_jax report`: the curves and numbers of one or more runs on one HTML page."""

import argparse
from pathlib import Path

from switch_jax.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "runs",
        nargs="+",
        metavar="RUN",
        help="run folder (a training's MODEL_DIR), finished or still going; a dense and a sparse "
        "one together also give the speed-up",
    )
    parser.add_argument(
        "--output",
        default="report.html",
        metavar="FILE",
        help="the page to write; a picture of the main charts goes beside it as .png "
        "(default: %(default)s)",
    )


def main(args: argparse.Namespace) -> int:
    """Writes the page and the picture, and prints the final numbers.

    Raises:
      UserError: a run folder cannot be read, or the output is not a .html file.
    """
    # matplotlib takes a second to import: not on every `switch_jax --help`.
    from switch_jax.reports import charts, downstream, figures, page, runs, summary

    output = Path(args.output)
    if output.suffix != ".html":
        raise UserError(f"--output {args.output}: the page needs a name that ends in .html")

    found = runs.read_runs(args.runs)
    task = summary.held_out_task(found)
    pairs = summary.comparisons(found, task)
    scores = downstream.read_downstream(found)
    sections = charts.sections(found, task, scores)
    picture = figures.picture(
        charts.main_charts(found, task, scores),
        page.title(found),
        [pair.sentence() for pair in pairs],
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(page.render(found, task, pairs, sections, scores), encoding="utf-8")
        output.with_suffix(".png").write_bytes(picture)
    except OSError as error:
        raise UserError(f"--output {args.output} cannot be written: {error.strerror}") from error

    rows = summary.final_numbers(found, task)
    rows += [*downstream.upstream_rows(scores), *downstream.score_rows(scores)]
    print(summary.text_table(found, rows))
    notes = [*downstream.left_out(found, scores), summary.empty_rows(found, task)]
    for note in filter(None, notes):
        print(f"note: {note}")
    for pair in pairs:
        print(f"\n{pair.sentence()}")
        for note in pair.caveats():
            print(f"  note: {note}")
    print(f"\npage:    {output}\npicture: {output.with_suffix('.png')}")
    return 0
