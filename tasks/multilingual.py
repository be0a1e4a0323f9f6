"""Text in 100 of mC4's languages, as a small mC4 without a download.

The task of a language is `udhr.<code>`, with its code in mC4: its Universal Declaration of Human
Rights, which only Sindhi lacks. Articles 28 to 30 are for validation in every language, so the
training text has no translation of them. `large_multilingual.<code>` adds manuals, in 39 languages
more than 100,000 characters; it is not shipped: `tasks/data/build_large_multilingual.py` builds it.
The mixtures `udhr` and
`large_multilingual` have rates as in mC4. tasks/data/README.md has sources and licences.
"""

import collections
import gzip
import json
from pathlib import Path

import seqio
import tensorflow as tf

from switch_jax.errors import UserError
from switch_jax.tasks.building_blocks import SPAN_CORRUPTION, features, language_rate
from switch_jax.tasks.english import DATA, add_task_of_lines

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

    seqio.TaskRegistry.add(
        f"udhr.{code}",
        source=seqio.FunctionDataSource(read, splits=tuple(PASSAGES)),
        preprocessors=SPAN_CORRUPTION,
        output_features=features(VOCABULARY),
        metric_fns=[],
    )


def built_files(code: str) -> dict[str, str]:
    """Where the script builds the text by default; another place is a task of one's own."""
    return {split: f"runs/large_multilingual/{code}.{split}.txt.gz" for split in PASSAGES}


def rate_of_built_text(task: seqio.Task) -> float:
    """As mT5's rate, with the size of the training file for the number of its examples.

    Raises:
      UserError: the text is not built.
    """
    file = Path(built_files(task.name.split(".")[1])["train"])
    if not file.exists():
        raise UserError(
            f"{task.name}: there is no file {file}: tasks/data/build_large_multilingual.py builds "
            "it (tasks/data/README.md)"
        )
    return language_rate(file.stat().st_size)


for code in PASSAGES["train"]:
    add_udhr_task(code)
    add_task_of_lines(f"large_multilingual.{code}", built_files(code), VOCABULARY)

seqio.MixtureRegistry.add(
    "udhr",
    [
        (f"udhr.{code}", language_rate(len(passages)))
        for code, passages in PASSAGES["train"].items()
    ],
)
seqio.MixtureRegistry.add(
    "large_multilingual",
    [(f"large_multilingual.{code}", rate_of_built_text) for code in PASSAGES["train"]],
)
