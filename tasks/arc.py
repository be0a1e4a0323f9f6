"""ARC (Clark et al. 2018): school science questions with three to five choices, easy and challenge.

The target is the text of the right choice; the score is the accuracy of the generated text.
"""

import functools

import seqio
import tensorflow as tf
from t5.evaluation import metrics

from switch_jax.tasks.building_blocks import T5_FEATURES, TEXT_TO_TEXT, answer_text

LETTERS = ("A", "B", "C", "D", "E")  # indexed by TFDS's label
CONFIGS = {"arc_easy": "ARC-Easy", "arc_challenge": "ARC-Challenge"}


@seqio.map_over_dataset
def as_text(record: dict[str, tf.Tensor], name: str) -> dict[str, tf.Tensor]:
    """Inputs 'NAME question: ... choices: (A) ... (B) ...', and the right choice as targets.

    A record is as in TFDS: 'question', string []; 'choices' with 'text', string [choices], and
    'label', int64 [choices]; 'answerKey', the label of the right choice, int64 [].
    """
    texts, labels = record["choices"]["text"], record["choices"]["label"]
    listed = tf.strings.join(["(", tf.gather(LETTERS, labels), ") ", texts])
    return {
        "inputs": tf.strings.join(
            [
                f"{name} question:",
                record["question"],
                "choices:",
                tf.strings.reduce_join(listed, separator=" "),
            ],
            separator=" ",
        ),
        "targets": texts[tf.argmax(labels == record["answerKey"])],
    }


for name, config in CONFIGS.items():
    seqio.TaskRegistry.add(
        name,
        source=seqio.TfdsDataSource(
            f"ai2_arc/{config}:1.0.0", splits=["train", "validation", "test"]
        ),
        preprocessors=[functools.partial(as_text, name=name), *TEXT_TO_TEXT],
        postprocess_fn=answer_text,
        output_features=T5_FEATURES,
        metric_fns=[metrics.accuracy],
    )
