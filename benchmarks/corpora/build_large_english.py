"""Builds the text of `large_english_span_corruption` from packages of Debian.

    apt-get download anarchism debian-handbook dict-foldoc dict-gcide gnome-user-docs \
        libreoffice-help-en-us linux-doc-6.12 postgresql-doc-17 python3.13-doc sqlite3-doc
    python benchmarks/corpora/build_large_english.py PACKAGES [--output runs/large_english]

PACKAGES is a folder with those .deb files. They are read with Python alone, so any machine will do;
README.md says what is in them, and their licences. Writes `train.txt.gz` and
`validation.txt.gz`, one passage a line: their text, and the three corpora of tasks/data. The
same packages give the same bytes.
"""

import argparse
import fnmatch
import gzip
import io
import itertools
import random
import re
import tarfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path

from build_english import OUTPUT, passages, split_of, write_lines

# By package: the files that are read, as a pattern of their path.
HTML = {
    "anarchism": "./usr/share/doc/anarchism/*.html",
    "debian-handbook": "./usr/share/doc/debian-handbook/html/en-US/*.html",
    "gnome-user-docs": "./usr/share/help/C/*.page",
    "libreoffice-help-en-us": "./usr/share/libreoffice/help/en-US/*.html",
    "linux-doc": "./usr/share/doc/linux-doc-*/html/*.html",
    "postgresql-doc": "./usr/share/doc/postgresql-doc-*/html/*.html",
    "python3": "./usr/share/doc/python3*/html/*.html",
    "sqlite3-doc": "./usr/share/doc/sqlite3/*.html",
}
DICTIONARIES = {
    "dict-foldoc": "./usr/share/dictd/foldoc.dict.dz",
    "dict-gcide": "./usr/share/dictd/gcide.dict.dz",
}
SHIPPED = ("bible", "factbook", "speeches")
SHORTEST_PARAGRAPH = 60  # characters: menus and headings are shorter

ENDS_PARAGRAPH = frozenset(
    "p li dt dd td th tr div section article title h1 h2 h3 h4 h5 h6 br blockquote".split()
)
SKIPPED = frozenset("script style pre nav head footer svg math aside button screen".split())


class Paragraphs(HTMLParser):
    """The paragraphs of a page of HTML or Mallard, without code and menus."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.done: list[str] = []
        self._parts: list[str] = []
        self._skipped: list[str] = []  # the open elements of SKIPPED

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in ENDS_PARAGRAPH:
            self.end_paragraph()
        if tag in SKIPPED:
            self._skipped.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ENDS_PARAGRAPH:
            self.end_paragraph()
        if self._skipped and self._skipped[-1] == tag:
            self._skipped.pop()

    def handle_data(self, data: str) -> None:
        if not self._skipped:
            self._parts.append(data)

    def end_paragraph(self) -> None:
        self.done.append("".join(self._parts))
        self._parts = []


def html_paragraphs(page: str) -> list[str]:
    parser = Paragraphs()
    parser.feed(page)
    parser.end_paragraph()
    return parser.done


def dictionary_entries(text: str) -> Iterator[str]:
    """One paragraph for each word, without pronunciations and the names of sources."""
    for entry in re.split(r"\n(?=\S)", text):
        entry = re.sub(r"\\[^\\\n]*\\", "", entry)  # Abdomen \Ab*do"men\, n.
        entry = re.sub(r"\[(1913 Webster|WordNet 1\.5|PJC|[^\]]*\+PJC|RP)\]", "", entry)
        yield re.sub(r"[{}]", "", entry).replace(" ,", ",")


def find_packages(packages: Path, name: str) -> list[Path]:
    """The packages in the folder whose names begin with `name`, sorted."""
    found = sorted(packages.glob(f"{name}*.deb"))
    if not found:
        raise SystemExit(f"{packages} has no {name}*.deb; the first lines say how to get it")
    return found


def files_of_packages(packages: Path, name: str, pattern: str) -> list[tuple[str, str]]:
    """Path and text of the files that match, in all packages whose names begin with `name`."""
    found = find_packages(packages, name)
    files = [file for package in found for file in files_of(package, pattern)]
    if not files:
        raise SystemExit(f"{found[0]} has no {pattern}: it is another package, or version")
    return files


def files_of(package: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Path and text of the files of a .deb that match, in the order of their paths."""
    with tarfile.open(fileobj=io.BytesIO(data_archive(package.read_bytes()))) as archive:
        members = [m for m in archive if m.isfile() and fnmatch.fnmatch(m.name, pattern)]
        english = [m for m in members if "/translations/" not in m.name]
        for member in sorted(english, key=lambda m: m.name):
            content = archive.extractfile(member).read()  # type: ignore[union-attr]
            if member.name.endswith(".dz"):
                content = gzip.decompress(content)
            yield member.name, content.decode("utf-8", errors="replace")


def data_archive(package: bytes) -> bytes:
    """The member `data.tar.*` of a .deb, which is an ar archive."""
    at = len(b"!<arch>\n")
    while at < len(package):
        name, size = package[at : at + 16].decode().strip(), int(package[at + 48 : at + 58])
        if name.startswith("data.tar"):
            return package[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise SystemExit("no data.tar in this package: is it a .deb?")


def documents(packages: Path) -> Iterator[tuple[str, list[str]]]:
    """Name and paragraphs of each page, and of every 50 entries of a dictionary."""
    for prefix, pattern in (HTML | DICTIONARIES).items():
        for path, text in files_of_packages(packages, prefix, pattern):
            if prefix in HTML:
                yield f"{prefix}:{path}", html_paragraphs(text)
                continue
            entries = list(dictionary_entries(text))
            for start in range(0, len(entries), 50):
                yield f"{prefix}:{start}", entries[start : start + 50]


def cleaned(paragraphs: Iterable[str], shortest: int = SHORTEST_PARAGRAPH) -> Iterator[str]:
    """The paragraphs with single spaces, without those of fewer than `shortest` characters."""
    for paragraph in paragraphs:
        text = " ".join(unicodedata.normalize("NFC", paragraph).split())
        if len(text) >= shortest and "\ufffd" not in text:
            yield text


def build(packages: Path) -> dict[str, list[str]]:
    """Passages by file. Each paragraph is used once, so none of validation is in train."""
    seen: set[str] = set()
    lines: dict[str, list[str]] = {"train": [], "validation": []}
    for name, paragraphs in documents(packages):
        new = [text for text in dict.fromkeys(cleaned(paragraphs)) if text not in seen]
        seen.update(new)
        lines[split_of(name)].extend(passages(new, heading=""))
    for split, corpus in itertools.product(lines, SHIPPED):
        with gzip.open(OUTPUT / f"{corpus}.{split}.txt.gz", "rt", encoding="utf-8") as shipped:
            lines[split].extend(shipped.read().splitlines())
    # seqio shuffles within a buffer of 1000 examples only, so the files themselves are mixed.
    for passages_of_split in lines.values():
        random.Random(0).shuffle(passages_of_split)
    return {f"{split}.txt.gz": found for split, found in lines.items()}


def write_built(doc: str, folder: str, build: Callable[[Path], dict[str, list[str]]]) -> None:
    """The command of a script that builds text from packages: PACKAGES [--output FOLDER].

    The Makefile takes the first file, by name, as the sign that all are there: it is written last,
    and one of an earlier time is removed before.

    Args:
      doc: the docstring of the script.
      folder: where the files lie without --output.
      build: from the folder of the packages, the passages of each file by its name.
    """
    parser = argparse.ArgumentParser(description=doc.split("\n")[0])
    parser.add_argument("packages", type=Path)
    parser.add_argument("--output", type=Path, default=Path(folder))
    flags = parser.parse_args()
    flags.output.mkdir(parents=True, exist_ok=True)
    files = build(flags.packages)
    (flags.output / min(files)).unlink(missing_ok=True)
    for name, lines in sorted(files.items(), reverse=True):
        write_lines(flags.output / name, lines, "passages")


if __name__ == "__main__":
    write_built(__doc__, "runs/large_english", build)
