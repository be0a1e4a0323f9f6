"""Two small tasks with metrics of either kind, a mixture of them, and others like them."""

import seqio
import tensorflow as tf

from switch_jax.tasks import english

QUESTIONS = [f"question {i}: how many are {i} and one?" for i in range(10)]


def _questions(split, shuffle_files, seed=None):
    del split, shuffle_files, seed
    answers = [str(i + 1) for i in range(10)]
    return tf.data.Dataset.from_tensor_slices({"inputs": QUESTIONS, "targets": answers})


worth = 10.0  # of a right answer


def exact(targets, predictions):
    return {"exact": worth * sum(t == p for t, p in zip(targets, predictions, strict=True))}


def probable(targets, scores):
    assert len(targets) == len(scores)
    return {"log_prob": sum(scores), "longest": max(map(len, targets))}


for name, metric, vocabulary in (
    ("exact_answers", exact, english.VOCABULARY),
    ("probable_answers", probable, english.VOCABULARY),
    ("exact_answers_in_bytes", exact, seqio.ByteVocabulary()),
    ("unscored_answers", None, english.VOCABULARY),
):
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(_questions, splits=["train", "validation"]),
        preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        postprocess_fn=lambda text, **_: text.strip(),
        output_features={key: seqio.Feature(vocabulary) for key in ("inputs", "targets")},
        metric_fns=[metric] if metric else [],
    )
seqio.MixtureRegistry.add("answers", ["exact_answers", "probable_answers"], default_rate=1.0)
