"""Three small English corpora that come with the library: pretraining by several objectives.

tasks/data/README.md has the source and the licence of each corpus.
"""

from pathlib import Path

import seqio
import tensorflow as tf

from switch_jax.tasks.building_blocks import (
    OBJECTIVES,
    SPAN_CORRUPTION,
    add_text_tasks,
    add_ul2,
    as_targets,  # noqa: F401  tasks of users may import it from here
)

DATA = Path(__file__).resolve().parent / "data"
CORPORA = ("bible", "factbook", "speeches")
VOCABULARY = seqio.SentencePieceVocabulary(str(DATA / "english_1000.model"), extra_ids=100)
STEPS_OF_LINES = SPAN_CORRUPTION


def read_lines(path: tf.Tensor) -> tf.data.Dataset:
    return tf.data.TextLineDataset(path, compression_type="GZIP")


SPLITS = ("train", "validation")
for corpus in CORPORA:
    files = {split: str(DATA / f"{corpus}.{split}.txt.gz") for split in SPLITS}
    source = seqio.FileDataSource(read_lines, files)
    add_text_tasks(corpus, source, VOCABULARY)
    add_ul2(corpus, source, VOCABULARY)

for objective in (*OBJECTIVES, "ul2"):
    seqio.MixtureRegistry.add(
        f"english_{objective}", [f"{corpus}_{objective}" for corpus in CORPORA], default_rate=1.0
    )
