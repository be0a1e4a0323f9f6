"""English C4, the paper's pretraining corpus (section 2), with T5's span corruption.

Since version 2.3.0 of the data set, a page does not repeat a line; T5's c4_v220_span_corruption
reads the version before.
"""

import seqio

from switch_jax.tasks.building_blocks import SPAN_CORRUPTION, T5_FEATURES

seqio.TaskRegistry.add(
    "c4_span_corruption",
    source=seqio.TfdsDataSource("c4/en:3.1.0"),
    preprocessors=SPAN_CORRUPTION,
    output_features=T5_FEATURES,
    metric_fns=[],
)
