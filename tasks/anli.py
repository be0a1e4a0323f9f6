"""Adversarial NLI (Nie et al. 2020) in three rounds; the paper reports the accuracy of round 3.

The text has the form of T5's MNLI, with the same words for the classes. The mixture `anli` mixes
the rounds in proportion to their training examples.
"""

import functools

import seqio
import t5.data.postprocessors
import t5.data.preprocessors
from t5.evaluation import metrics

from switch_jax.tasks.building_blocks import T5_FEATURES, TEXT_TO_TEXT

CLASSES = ("entailment", "neutral", "contradiction")  # TFDS: e, n, c
TRAIN_EXAMPLES = {"r1": 16_946, "r2": 45_460, "r3": 100_459}

for name in TRAIN_EXAMPLES:
    seqio.TaskRegistry.add(
        f"anli_{name}",
        source=seqio.TfdsDataSource(f"anli/{name}:0.1.0", splits=["train", "validation", "test"]),
        preprocessors=[
            functools.partial(
                seqio.preprocessors.rekey,
                key_map={
                    "premise": "context",
                    "hypothesis": "hypothesis",
                    "label": "label",
                    "idx": "uid",
                },
            ),
            functools.partial(
                t5.data.preprocessors.glue, benchmark_name="anli", label_names=CLASSES
            ),
            *TEXT_TO_TEXT,
        ],
        postprocess_fn=functools.partial(
            t5.data.postprocessors.string_label_to_class_id, label_classes=CLASSES
        ),
        output_features=T5_FEATURES,
        metric_fns=[metrics.accuracy],
    )

seqio.MixtureRegistry.add(
    "anli", [(f"anli_{name}", float(n)) for name, n in TRAIN_EXAMPLES.items()]
)
