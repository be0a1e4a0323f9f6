"""Builds the text of `large_code_span_corruption` from the sources of Linux, a package of Debian.

    apt-get download linux-source-6.12
    python benchmarks/corpora/build_large_code.py PACKAGES [--output runs/large_code]

PACKAGES is a folder with that .deb file. It is read with Python alone; README.md says what
is taken of it. Writes `train.txt` and `validation.txt`, one passage a line. The same package
gives the same bytes.
"""

import hashlib
import io
import random
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

from build_english import passages, split_of
from build_large_english import cleaned, data_archive, find_packages, write_built

PASSAGE_CHARACTERS = 500  # about 240 pieces of the 1000-piece vocabulary
# A third of all C code: generated definitions of registers, one like the other.
GENERATED = "/drivers/gpu/drm/amd/include/"
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
LICENCE = re.compile(
    r"copyright|licen[cs]e|redistribut|warranty|all rights reserved", re.IGNORECASE
)


def c_files(package: Path) -> Iterator[tuple[str, str]]:
    """Path and text of the C files of a package's linux-source-*.tar.xz, in its order."""
    data = io.BytesIO(data_archive(package.read_bytes()))
    with tarfile.open(fileobj=data, mode="r|*") as members:
        for member in members:
            if not member.name.endswith(".tar.xz"):
                continue
            with tarfile.open(fileobj=members.extractfile(member), mode="r|xz") as sources:
                for file in sources:
                    name = file.name
                    if file.isfile() and name.endswith((".c", ".h")) and GENERATED not in name:
                        code = sources.extractfile(file).read()  # type: ignore[union-attr]
                        yield name, code.decode("utf-8", errors="replace")


def without_licences(code: str) -> str:
    return COMMENT.sub(lambda comment: "" if LICENCE.search(comment[0]) else comment[0], code)


def build(packages: Path) -> dict[str, list[str]]:
    """Passages by file. A folder is in one split, and each passage is used once."""
    seen: set[bytes] = set()
    lines: dict[str, list[str]] = {"train": [], "validation": []}
    for package in find_packages(packages, "linux-source"):
        for path, code in c_files(package):
            split = split_of(path.rpartition("/")[0])
            units = without_licences(code).split("\n")
            for text in cleaned(passages(units, heading="", characters=PASSAGE_CHARACTERS)):
                digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
                if digest not in seen:
                    seen.add(digest)
                    lines[split].append(text)
    # A chunk of a file stays together (docs/data_streams.md), so the passages are mixed.
    for passages_of_split in lines.values():
        random.Random(0).shuffle(passages_of_split)
    return {f"{split}.txt": found for split, found in lines.items()}


if __name__ == "__main__":
    write_built(__doc__, "runs/large_code", build)
