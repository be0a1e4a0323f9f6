"""Text in 100 of mC4's languages, as a small mC4 without a download.

The task of a language is `udhr.<code>`, with its code in mC4: its Universal Declaration of Human
Rights, which only Sindhi lacks. `udhr_prefix_lm.<code>` and `udhr_full_lm.<code>` are the same
texts for language models. Articles 28 to 30 are for validation in every language, so the training
text has no translation of them. The mixtures have rates as in mC4.
tasks/data/README.md has sources and licences.
"""

import collections
import gzip
import json

import seqio
import tensorflow as tf

from switch_jax.tasks.building_blocks import add_language_tasks
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


def source_of(code: str) -> seqio.DataSource:
    def read(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices({"text": PASSAGES[split][code]})

    return seqio.FunctionDataSource(read, splits=tuple(PASSAGES))


EXAMPLES = {code: len(passages) for code, passages in PASSAGES["train"].items()}
add_language_tasks("udhr", source_of, EXAMPLES, VOCABULARY)
