"""Text in 100 of mC4's languages, as a small mC4 without a download.

The task of a language is `udhr.<code>`, with its code in mC4: its Universal Declaration of Human
Rights, which only Sindhi lacks. Articles 28 to 30 are for validation in every language, so the
training text has no translation of them. The mixture `udhr` has rates as in mC4.
tasks/data/README.md has sources and licences.
"""

import collections
import gzip
import json

import seqio
import tensorflow as tf

from switch_jax.tasks.building_blocks import SPAN_CORRUPTION, add_text_task, language_rate
from switch_jax.tasks.english import DATA

VOCABULARY = seqio.SentencePieceVocabulary(str(DATA / "udhr_8000.model"), extra_ids=100)


def read_passages(split: str) -> dict[str, list[str]]:
    """The passages of a split by language code."""
    passages = collections.defaultdict(list)
    with gzip.open(DATA / f"udhr.{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            passages[record["language"]].append(record["text"])
    return passages


PASSAGES = {split: read_passages(split) for split in ("train", "validation")}


def add_udhr_task(code: str) -> None:
    def read(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices({"text": PASSAGES[split][code]})

    source = seqio.FunctionDataSource(read, splits=tuple(PASSAGES))
    add_text_task(f"udhr.{code}", SPAN_CORRUPTION, source, VOCABULARY)


for code in PASSAGES["train"]:
    add_udhr_task(code)

seqio.MixtureRegistry.add(
    "udhr",
    [
        (f"udhr.{code}", language_rate(len(passages)))
        for code, passages in PASSAGES["train"].items()
    ],
)
