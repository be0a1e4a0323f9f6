"""Span corruption of three small English corpora that come with the library.

tasks/data/README.md has the source and the licence of each corpus.
"""

from collections.abc import Mapping
from pathlib import Path

import seqio
import tensorflow as tf

from switch_jax.tasks.building_blocks import SPAN_CORRUPTION, features

DATA = Path(__file__).resolve().parent / "data"
CORPORA = ("bible", "factbook", "speeches")
VOCABULARY = seqio.SentencePieceVocabulary(str(DATA / "english_1000.model"), extra_ids=100)


@seqio.map_over_dataset
def as_targets(line: tf.Tensor) -> dict[str, tf.Tensor]:
    """The line as targets, from which span corruption makes the inputs."""
    return {"targets": line}


STEPS_OF_LINES = (as_targets, *SPAN_CORRUPTION[1:])


def read_lines(path: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TextLineDataset(path, compression_type="GZIP")


def add_task_of_lines(
    name: str, files: Mapping[str, str], vocabulary: seqio.Vocabulary = VOCABULARY
) -> None:
    """Registers span corruption of gzipped text, a passage a line; `files` by split."""
    seqio.TaskRegistry.add(
        name,
        source=seqio.FileDataSource(read_lines, files),
        preprocessors=STEPS_OF_LINES,
        output_features=features(vocabulary),
        metric_fns=[],
    )


SPLITS = ("train", "validation")
for corpus in CORPORA:
    files = {split: str(DATA / f"{corpus}.{split}.txt.gz") for split in SPLITS}
    add_task_of_lines(f"{corpus}_span_corruption", files)

seqio.MixtureRegistry.add(
    "english_span_corruption", [f"{corpus}_span_corruption" for corpus in CORPORA], default_rate=1.0
)
