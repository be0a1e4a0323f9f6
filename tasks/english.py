"""Span corruption of three small English corpora that come with the library, and of a larger one.

tasks/data/README.md has the source and the licence of each corpus. The larger one,
`large_english_span_corruption`, is not shipped: `tasks/data/build_large_english.py` builds it.
`factbook_facts_span_corruption` has short facts of the Factbook, each in a row of its own with its
country, from which a small model learns what `factbook_qa_open` asks for.
"""

import functools
import gzip
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import seqio
import t5.data.preprocessors
import tensorflow as tf

from switch_jax.tasks.building_blocks import features

DATA = Path(__file__).resolve().parent / "data"
CORPORA = ("bible", "factbook", "speeches")
FACT_LENGTH = 100  # characters, at most
# The fields of a country that say what, and not how much; each with those that begin so.
FIELDS = (
    "Capital, name",
    "Climate",
    "Country name",
    "Elevation extremes",
    "Government type",
    "Independence",
    "Internet country code",
    "Languages",
    "Location",
    "National anthem",
    "National holiday",
    "National symbol",
    "Nationality",
    "Religions",
    "Terrain",
)
# Between two facts of a passage: a fact begins with its name and a colon.
NEXT_FACT = re.compile(r"(?<=\.) (?=[A-Z][^.:;]*: )")
VOCABULARY = seqio.SentencePieceVocabulary(str(DATA / "english_1000.model"), extra_ids=100)


@seqio.map_over_dataset
def as_targets(line: tf.Tensor) -> dict[str, tf.Tensor]:
    """The line as targets, from which span corruption makes the inputs."""
    return {"targets": line}


def read_lines(path: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TextLineDataset(path, compression_type="GZIP")


def add_task(
    name: str,
    source: seqio.DataSource,
    vocabulary: seqio.Vocabulary = VOCABULARY,
    span_corruption: Callable[..., tf.data.Dataset] = t5.data.preprocessors.span_corruption,
) -> None:
    """Registers span corruption of a source of texts."""
    seqio.TaskRegistry.add(
        name,
        source=source,
        # As in T5's c4_v220_span_corruption: masks 15 % of the tokens in spans of 3 on average.
        preprocessors=[
            as_targets,
            seqio.preprocessors.tokenize,
            seqio.CacheDatasetPlaceholder(),
            span_corruption,
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features=features(vocabulary),
        metric_fns=[],
    )


def add_task_of_lines(
    name: str, files: Mapping[str, str], vocabulary: seqio.Vocabulary = VOCABULARY
) -> None:
    """Registers span corruption of gzipped text, a passage a line; `files` by split."""
    add_task(name, seqio.FileDataSource(read_lines, files), vocabulary)


def read_facts(split: str) -> Iterator[str]:
    """Short facts of FIELDS, each after its country, as "Kenya. Capital, name: Nairobi."."""
    with gzip.open(DATA / f"factbook.{split}.txt.gz", "rt", encoding="utf-8") as passages:
        for passage in passages:
            country, facts = passage.rstrip("\n").split(". ", 1)
            for fact in NEXT_FACT.split(facts):
                line = f"{country}. {fact}"
                if fact.startswith(FIELDS) and len(line) <= FACT_LENGTH:
                    yield line


def facts_dataset(split: str, shuffle_files: bool, seed: int | None = None) -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(list(read_facts(split)))


SPLITS = ("train", "validation")
add_task(
    "factbook_facts_span_corruption",
    seqio.FunctionDataSource(facts_dataset, splits=SPLITS),
    # Not put together: a row that begins within a fact does not say of which country it is.
    span_corruption=functools.partial(
        t5.data.preprocessors.span_corruption, merge_examples_to_reduce_padding=False
    ),
)
for corpus in CORPORA:
    files = {split: str(DATA / f"{corpus}.{split}.txt.gz") for split in SPLITS}
    add_task_of_lines(f"{corpus}_span_corruption", files)
# Where `make study` builds it; another place is a task of one's own (docs/own_tasks.md).
add_task_of_lines(
    "large_english_span_corruption",
    {split: f"runs/large_english/{split}.txt.gz" for split in SPLITS},
)

seqio.MixtureRegistry.add(
    "english_span_corruption",
    [f"{corpus}_span_corruption" for corpus in CORPORA],
    default_rate=1.0,
)
seqio.MixtureRegistry.add(
    "english_and_facts",
    ["english_span_corruption", "factbook_facts_span_corruption"],
    default_rate=1.0,
)
