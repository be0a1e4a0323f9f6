"""XSum: summaries of BBC articles in one sentence (Narayan et al. 2018); the paper reports ROUGE-2.

The inputs begin with "summarize:", like those of T5's cnn_dailymail_v002.
"""

import functools

import seqio
import t5.data.preprocessors
from t5.evaluation import metrics

from switch_jax.tasks.building_blocks import T5_FEATURES, TEXT_TO_TEXT

seqio.TaskRegistry.add(
    "xsum",
    source=seqio.TfdsDataSource("xsum:1.1.0", splits=["train", "validation", "test"]),
    preprocessors=[
        functools.partial(
            t5.data.preprocessors.summarize, article_key="document", summary_key="summary"
        ),
        *TEXT_TO_TEXT,
    ],
    output_features=T5_FEATURES,
    metric_fns=[metrics.rouge],
)
