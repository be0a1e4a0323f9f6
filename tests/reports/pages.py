"""Pages through the command."""

import argparse
import html
import re

from switch_jax.cli import report


def make_report(*folders, output, flags=()):
    parser = argparse.ArgumentParser()
    report.add_arguments(parser)
    args = parser.parse_args([*map(str, folders), "--output", str(output), *flags])
    assert report.main(args) == 0
    return output.read_text(encoding="utf-8")


def headings(page):
    return [html.unescape(text) for text in re.findall("<h2>(.*?)</h2>", page)]
