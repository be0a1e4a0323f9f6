"""The pages of the documentation, as the tests of this folder read them."""

import os
import re
import runpy
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
reference = SimpleNamespace(**runpy.run_path(str(ROOT / "tools/reference.py")))


def texts() -> dict[str, str]:
    """The Markdown of every page by its path in the checkout."""
    pages = [*DOCS.rglob("*.md"), *(ROOT / n for n in ("README.md", "CONTRIBUTING.md"))]
    return {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in pages}


def navigation() -> list[str]:
    """The pages of the site, in their order, by their path in docs/."""

    def pages(items: list[dict[str, Any]]) -> Iterator[str]:
        for item in items:
            for target in item.values():
                yield from [target] if isinstance(target, str) else pages(target)

    with open(ROOT / "zensical.toml", "rb") as file:
        return list(pages(tomllib.load(file)["project"]["nav"]))


def blocks(text: str) -> list[str]:
    """The indented blocks of code, without the indentation."""
    found = re.findall(r"(?:(?<=\n\n)|\A)((?: {4}.*\n|\n(?= {4}))+)", text + "\n")
    return [re.sub("^    ", "", block, flags=re.M) for block in found]


def in_words(shell: str) -> list[str]:
    """The lines of a script, each with those that continue it, and with single spaces."""
    joined = re.sub(r"\\\n\s*", " ", shell)
    return [" ".join(line.split()) for line in joined.splitlines()]


def commands(text: str) -> list[str]:
    """The lines of the blocks of code, as `in_words`."""
    return in_words("\n".join(blocks(text)))


def prose(text: str) -> str:
    """The text without the blocks of code."""
    return re.sub(r"(?m)^ {4}.*$", "", re.sub(r"(?s)^```.*?^```$", "", text, flags=re.M))


def follow(typed: list[str], folder: Path) -> str:
    """Writes the files of blocks of code and runs the others, as somebody types them.

    Args:
      typed: blocks; one that begins with a comment like `# my_tasks.py` is that file.
      folder: where.

    Returns:
      What the commands print.
    """
    (folder / "tasks").symlink_to(ROOT / "tasks")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    # The devices are those that a run asks for, and not those of the tests.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | {"PATH": path}
    printed = ""
    for block in typed:
        if file := re.match(r"# (my_\w+\.\w+)\n", block):
            (folder / file[1]).write_text(block)
            continue
        command = ["bash", "-eu", "-c", block]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"{block}\n{done.stdout}\n{done.stderr}"
        printed += done.stdout
    return printed


# What a command needs that a test has not: a bucket, data sets, models or packages of others, the
# folder of the checkout, or hours.
_ELSEWHERE = (
    *("gs://", "/data/tfds", "c4_span_corruption", "super_glue", "trivia_qa"),
    *("pip install", "from transformers", "paper_in_small", "-m tools"),
)


def typed_here(page: str) -> list[str]:
    """The blocks of a page but those that need more than a checkout and some minutes.

    Args:
      page: its path in docs/.
    """
    found = blocks((DOCS / page).read_text())
    return [block for block in found if not any(name in block for name in _ELSEWHERE)]
