"""Builds the English corpora and the vocabulary of `switch_jax.tasks.english`.

    python benchmarks/corpora/build_english.py SOURCES

SOURCES is a folder with factbook, sotu and web_bible as `<name>.jsonl` or `<name>.jsonl.xz`: one
{"id": ..., "text": ...} a line, one document each (tasks/data/README.md says where they come from).
In tasks/data it writes, for each corpus, `<corpus>.train.txt.gz` and `<corpus>.validation.txt.gz`,
one passage a line, and `english_1000.model`, trained on the train passages only. The same sources
and the same sentencepiece give the same bytes.
"""

import argparse
import gzip
import hashlib
import io
import json
import lzma
import random
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import sentencepiece

OUTPUT = Path(__file__).resolve().parents[2] / "tasks/data"
PASSAGE_CHARACTERS = 1200  # about 450 pieces of the 1000-piece vocabulary
VALIDATION_ONE_IN = 20  # documents
FIRST_SPEECH = 1913  # messages before it are mostly written reports


def read_documents(sources: Path, name: str) -> Iterator[dict[str, str]]:
    path = sources / f"{name}.jsonl"
    opened = path.open("rb") if path.exists() else lzma.open(f"{path}.xz")
    with opened as lines:
        for line in lines:
            yield json.loads(line)


def country_facts(document: dict[str, str]) -> list[str]:
    """One sentence per fact, without the country's name that each line of the source repeats."""
    name, *facts = document["text"].split("\n")
    stripped = (fact.removeprefix(f"{name}. ").rstrip(" .") for fact in facts)
    return [f"{fact}." for fact in stripped if fact and "\ufffd" not in fact]


def sentences(document: dict[str, str]) -> list[str]:
    return re.split(r"(?<=[.!?”’])\s+(?=[A-Z“‘])", document["text"])


def speech_sentences(document: dict[str, str]) -> list[str]:
    return sentences(document) if int(document["id"][:4]) >= FIRST_SPEECH else []


def chapter_sentences(document: dict[str, str]) -> list[str]:
    # Where a footnote stood the source lost the space between two words.
    return sentences({"text": re.sub(r"(?<=[a-z])(?=[A-Z])", " ", document["text"])})


def passages(units: list[str], heading: str, characters: int = PASSAGE_CHARACTERS) -> Iterator[str]:
    """Joins units into passages of at least `characters`; only the last may be shorter."""
    passage = heading
    for unit in units:
        passage = " ".join(f"{passage} {unit}".split())
        if len(passage) >= characters:
            yield passage
            passage = heading
    if passage != heading:
        yield passage


def split_of(document_id: str) -> str:
    digest = hashlib.sha256(document_id.encode()).digest()
    return "train" if int.from_bytes(digest[:8]) % VALIDATION_ONE_IN else "validation"


def build_corpus(
    documents: Iterable[dict[str, str]], units: Callable[[dict[str, str]], list[str]], titled: bool
) -> dict[str, list[str]]:
    """Passages by split, each one once; no unit of a train document is left in validation."""
    parts: dict[str, list[tuple[str, list[str]]]] = {"train": [], "validation": []}
    for document in documents:
        heading = document["text"].split("\n")[0] + "." if titled else ""
        parts[split_of(document["id"])].append((heading, units(document)))
    trained = {unit for _, document_units in parts["train"] for unit in document_units}
    parts["validation"] = [
        (heading, [unit for unit in document_units if unit not in trained])
        for heading, document_units in parts["validation"]
    ]
    lines = {
        split: list(dict.fromkeys(line for heading, us in found for line in passages(us, heading)))
        for split, found in parts.items()
    }
    # seqio shuffles within a buffer of 1000 examples only, so the files themselves are mixed.
    random.Random(0).shuffle(lines["train"])
    return lines


def write_lines(path: Path, lines: list[str], what: str) -> None:
    """Writes the file as a whole or not at all, gzipped if its name ends in .gz; prints its size.

    `what` names the lines, as in "passages".
    """
    encoded = (f"{line}\n".encode() for line in lines)
    unfinished = path.with_name(f"{path.name}.unfinished")
    with unfinished.open("wb") as file:
        if path.suffix == ".gz":
            file.write(gzip.compress(b"".join(encoded), compresslevel=9, mtime=0))
        else:
            file.writelines(encoded)
    unfinished.replace(path)
    characters = sum(map(len, lines))
    print(f"{path}: {len(lines)} {what}, {characters} characters, {path.stat().st_size} bytes")


def train_vocabulary(lines: list[str], pieces: int, **options: Any) -> bytes:
    """A unigram SentencePiece model: pad 0, eos 1, unk 2, no bos; options of the trainer's."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=model,
        model_type="unigram",
        vocab_size=pieces,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        num_threads=1,
        max_sentence_length=8192,
        minloglevel=2,
        **options,
    )
    return model.getvalue()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("sources", type=Path)
    sources = parser.parse_args().sources
    corpora = {
        "factbook": build_corpus(read_documents(sources, "factbook"), country_facts, titled=True),
        "speeches": build_corpus(read_documents(sources, "sotu"), speech_sentences, titled=False),
        "bible": build_corpus(
            read_documents(sources, "web_bible"), chapter_sentences, titled=False
        ),
    }
    for corpus, splits in corpora.items():
        for split, lines in splits.items():
            write_lines(OUTPUT / f"{corpus}.{split}.txt.gz", lines, "passages")
    train = [line for splits in corpora.values() for line in splits["train"]]
    (OUTPUT / "english_1000.model").write_bytes(train_vocabulary(train, pieces=1000))


if __name__ == "__main__":
    main()
