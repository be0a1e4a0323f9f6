"""`switch_jax report`: the curves and numbers of one or more runs on one HTML page."""

import argparse

from switch_jax.errors import UserError
from switch_jax.storage import storage_path, write_file


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
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="NATS",
        help="also say at which step, and after what time, each run first has this held-out "
        "negative log perplexity, such as -1.5",
    )
    parser.add_argument(
        "--serve",
        type=_port,
        nargs="?",
        const=8000,
        metavar="PORT",
        help="then serve the page to browsers of this machine, and follow the runs, until Ctrl-C "
        "(default: no; without PORT: %(const)s)",
    )


def main(args: argparse.Namespace) -> int:
    """Writes the page and the picture, prints the final numbers, and serves the page if asked to.

    Raises:
      UserError: a run folder cannot be read, the output is not a .html file, or the port is taken.
    """
    if args.serve is None:
        print("\n".join(_write(args)))
        return 0

    from switch_jax.reports.serve import ReportServer

    with ReportServer(
        args.serve, args.runs, storage_path(args.output, "--output"), lambda: _write(args)
    ) as server:
        print("\n".join(server.write()))
        print(f"serving:  {server.url} (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0


def _port(text: str) -> int:
    """The number; the type of --serve, which takes a RUN after it for its PORT."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no port: write --serve after the runs, or --serve=PORT"
        ) from None


def _write(args: argparse.Namespace) -> list[str]:
    """Writes the page and the picture; the lines of the final numbers."""
    # matplotlib takes a second to import: not on every `switch_jax --help`.
    from switch_jax.reports import drawing, page, pictures
    from switch_jax.reports.findings import read_findings
    from switch_jax.reports.tables import text_lines
    from switch_jax.reports.verdict import furthest_ahead, verdicts

    output = storage_path(args.output, "--output")
    if output.suffix != ".html":
        raise UserError(f"--output {args.output}: the page needs a name that ends in .html")

    if args.threshold is not None and args.threshold >= 0:
        raise UserError(
            f"--threshold {args.threshold:g}: a negative log perplexity is below 0; write "
            f"--threshold=-{args.threshold:g}"
        )

    findings = read_findings(args.runs, args.threshold)
    in_words = furthest_ahead if findings.is_study else verdicts
    picture = drawing.picture(
        pictures.main_charts(findings),
        findings.title,
        in_words(findings.comparisons),
        width=10.0 if findings.is_study else 12.0,
    )
    written = page.render(findings)
    write_file(output, written, f"--output {args.output}")
    write_file(output.with_suffix(".png"), picture, f"--output {args.output}")
    pages = [f"page:    {output}", f"picture: {output.with_suffix('.png')}"]
    return [*text_lines(findings), "", *pages]
