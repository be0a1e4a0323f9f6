"""Span corruption of C code, which is not shipped: `tasks/data/build_large_code.py` builds it.

tasks/data/README.md has the sources and their licence.
"""

import seqio

from switch_jax.tasks.building_blocks import features
from switch_jax.tasks.english import DATA, SPLITS, STEPS_OF_LINES

VOCABULARY = seqio.SentencePieceVocabulary(str(DATA / "code_1000.model"), extra_ids=100)

# Where `make long_study` builds it; another place is a task of one's own (docs/own_tasks.md).
# Plain text can be read from any place, so that it is shuffled as a whole, and resuming is quick.
seqio.TaskRegistry.add(
    "large_code_span_corruption",
    source=seqio.TextLineDataSource({split: f"runs/large_code/{split}.txt" for split in SPLITS}),
    preprocessors=STEPS_OF_LINES,
    output_features=features(VOCABULARY),
    metric_fns=[],
)
