"""English C4, the paper's pretraining corpus (section 2): T5's tasks, and UL2's denoisers.

Since version 2.3.0 of the data set, a page does not repeat a line; T5's c4_v220_span_corruption,
c4_v220_prefix_lm and c4_v220_full_lm read the version before. `c4` reads what TFDS has prepared,
`c4_json` the files of allenai/c4.
"""

import seqio

from switch_jax.tasks import named_vocabularies
from switch_jax.tasks.building_blocks import add_text_tasks, add_ul2
from switch_jax.tasks.c4_files import C4Files

SOURCES = {
    "c4": seqio.TfdsDataSource("c4/en:3.1.0"),
    "c4_json": C4Files({"train": "en/c4-train.*", "validation": "en/c4-validation.*"}),
}

for name, source in SOURCES.items():
    add_text_tasks(name, source, named_vocabularies.T5)
    add_ul2(name, source, named_vocabularies.T5_MORE_SENTINELS)
