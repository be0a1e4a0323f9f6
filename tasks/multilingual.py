"""mC4 in small, without a download: the Universal Declaration of Human Rights in 100 languages.

A language is `udhr.<code>` with its code in mC4, where all but Sindhi have their declaration; the
mixture `udhr` takes mC4's rates. Articles 28 to 30 are for validation, in every language alike, so
no translation of them is trained on. data/README.md gives source and licence.
"""

import collections
import gzip
import json

import seqio
import tensorflow as tf

from switch_jax.tasks.english import DATA
from switch_jax.tasks.steps import SPAN_CORRUPTION, features, language_rate

VOCABULARY = seqio.SentencePieceVocabulary(str(DATA / "udhr_8000.model"), extra_ids=100)


def read_passages(split: str) -> dict[str, list[str]]:
    """Passages by language code."""
    passages = collections.defaultdict(list)
    with gzip.open(DATA / f"udhr.{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            passages[record["language"]].append(record["text"])
    return passages


PASSAGES = {split: read_passages(split) for split in ("train", "validation")}


def task_name(code: str) -> str:
    return f"udhr.{code}"


def add(code: str) -> None:
    def read(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
        return tf.data.Dataset.from_tensor_slices({"text": PASSAGES[split][code]})

    seqio.TaskRegistry.add(
        task_name(code),
        source=seqio.FunctionDataSource(read, splits=tuple(PASSAGES)),
        preprocessors=SPAN_CORRUPTION,
        output_features=features(VOCABULARY),
        metric_fns=[],
    )


for code in PASSAGES["train"]:
    add(code)

seqio.MixtureRegistry.add(
    "udhr",
    [(task_name(code), language_rate(len(found))) for code, found in PASSAGES["train"].items()],
)
