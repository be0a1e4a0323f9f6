"""WinoGrande (Sakaguchi et al. 2019): which of two options fills the blank of a sentence.

The tasks differ only in the number of their training examples, from 160 (`winogrande_xs`) to 40,398
(`winogrande_xl`, the paper's). The target is the text of the right option; the score is the
accuracy of the generated text.
"""

import seqio
import tensorflow as tf
from t5.evaluation import metrics

from switch_jax.tasks.building_blocks import T5_FEATURES, TEXT_TO_TEXT, answer_text

SIZES = ("xs", "s", "m", "l", "xl")


@seqio.map_over_dataset
def as_text(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Inputs 'winogrande sentence: ... option1: ... option2: ...', the right option as targets.

    A record is as in TFDS: 'sentence' has '_' as its blank; 'label', int64 [], is 0 or 1, or -1
    where it is not published, as in the test split: then the targets are '<unk>'.
    """
    first, second, label = record["option1"], record["option2"], record["label"]
    return {
        "inputs": tf.strings.join(
            ["winogrande sentence:", record["sentence"], "option1:", first, "option2:", second],
            separator=" ",
        ),
        "targets": tf.stack(["<unk>", first, second])[label + 1],
    }


for size in SIZES:
    seqio.TaskRegistry.add(
        f"winogrande_{size}",
        source=seqio.TfdsDataSource(
            "winogrande:1.2.0",
            splits={"train": f"train_{size}", "validation": "validation", "test": "test"},
        ),
        preprocessors=[as_text, *TEXT_TO_TEXT],
        postprocess_fn=answer_text,
        output_features=T5_FEATURES,
        metric_fns=[metrics.accuracy],
    )
