"""Builds the text of the mixture `large_multilingual` from packages of Debian.

    apt-get download debian-handbook gnome-user-docs installation-guide-amd64 \
        $(apt-cache search --names-only '^libreoffice-help-..(-..)?$' | cut -d' ' -f1)
    python benchmarks/corpora/build_large_multilingual.py PACKAGES

PACKAGES is a folder with those .deb files. They are read with Python alone, so any machine will do;
README.md says what is in them, and their licences. Writes `CODE.train.txt.gz` and
`CODE.validation.txt.gz` in runs/large_multilingual (or --output) for each of the 100 languages of
`udhr`, one passage a line: the manuals in that language, if there are any, and its declaration of
human rights. The same packages give the same bytes.
"""

import collections
import gzip
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

from build_english import OUTPUT, passages, split_of
from build_large_english import cleaned, files_of_packages, html_paragraphs, write_built

# By package: the files that are read, and the place of the language in their path.
PAGES = {
    "debian-handbook": "./usr/share/doc/debian-handbook/html/LANGUAGE/*.html",
    "gnome-user-docs": "./usr/share/help/LANGUAGE/*.page",
    "installation-guide-amd64": "./usr/share/doc/installation-guide-amd64/LANGUAGE/*.html",
    "libreoffice-help": "./usr/share/libreoffice/help/LANGUAGE/text/*.html",
}
SPLITS = ("train", "validation")
# Codes of mC4 for languages and countries that the packages name in another way.
CODES = {"c": "en", "he": "iw", "nb": "no", "nn": "no"}
# Languages whose sentences have a third of the characters that others need.
DENSE = frozenset({"ja", "ko", "zh"})
SHORTEST_PARAGRAPH, SHORTEST_DENSE = 60, 20  # characters: menus and headings are shorter


def mc4_code(language: str) -> str:
    """pt_BR, pt-BR -> pt; sr@latin stays as it is, since mC4 has Serbian in Cyrillic."""
    code = re.split("[-_]", language.lower())[0]
    return CODES.get(code, code)


def pages(packages: Path) -> Iterator[tuple[str, str, str]]:
    """Code, name and text of each page. The translations of a page share its name."""
    for package, pattern in PAGES.items():
        depth = pattern.split("/").index("LANGUAGE")
        files = files_of_packages(packages, package, pattern.replace("LANGUAGE", "*"))
        for path, text in files:
            parts = path.split("/")
            yield mc4_code(parts[depth]), "/".join([package, *parts[depth + 1 :]]), text


def declarations(split: str) -> dict[str, list[str]]:
    """The passages of `udhr` by code."""
    found = collections.defaultdict(list)
    with gzip.open(OUTPUT / f"udhr.{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            found[record["language"]].append(record["text"])
    return found


def build(packages: Path) -> dict[str, list[str]]:
    """Passages by file; prints how much text each split has.

    A page is in the same split in all languages, so no text of validation is in train in another
    language. Each paragraph is used once in a language, and not at all where it is the English one,
    which was not translated.
    """
    shipped = {split: declarations(split) for split in SPLITS}
    lines: dict[tuple[str, str], list[str]] = {
        (code, split): [] for code in shipped["train"] for split in SPLITS
    }
    seen: dict[str, set[str]] = collections.defaultdict(set)
    ordered = sorted(pages(packages), key=lambda page: (page[0] != "en", page))
    for code, name, text in ordered:
        if (code, "train") not in lines:
            continue
        shortest = SHORTEST_DENSE if code in DENSE else SHORTEST_PARAGRAPH
        new = [
            paragraph
            for paragraph in dict.fromkeys(cleaned(html_paragraphs(text), shortest))
            if paragraph not in seen[code] and paragraph not in seen["en"]
        ]
        seen[code].update(new)
        lines[code, split_of(name)].extend(passages(new, heading=""))
    sizes: collections.Counter[str] = collections.Counter()
    for (code, split), found in lines.items():
        found.extend(shipped[split][code])
        # seqio shuffles within a buffer of 1000 examples only, so the files themselves are mixed.
        random.Random(0).shuffle(found)
        sizes[split] += sum(map(len, found))
    print(", ".join(f"{split}: {size} characters" for split, size in sizes.items()))
    return {f"{code}.{split}.txt.gz": found for (code, split), found in lines.items()}


if __name__ == "__main__":
    write_built(__doc__, "runs/large_multilingual", build)
