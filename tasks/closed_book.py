"""Questions answered from memory: TriviaQA, Natural Questions and WebQuestions without a context.

Names, splits and prefixes are those of Roberts et al. 2020 (https://arxiv.org/abs/2002.08910): the
last tenth of the published training examples serves for validation. The test split is the published
one or, if there is none, the published validation split. Scores are exact match (`em`) and F1
against the best of all answers, after the normalisation of TriviaQA's or SQuAD's own script.
"""

import functools

import seqio
import t5.data.postprocessors
import tensorflow as tf
from t5.evaluation import metrics

from switch_jax.tasks.building_blocks import T5_FEATURES, TEXT_TO_TEXT, trivia_qa


@seqio.map_over_dataset
def first_answer(record: dict[str, tf.Tensor], prefix: str, key: str) -> dict[str, tf.Tensor]:
    """The question as inputs, its first answer as targets, and all answers for the score.

    A record has 'question', string [], and the answers, string [answers], by `key`.
    """
    return {
        "inputs": tf.strings.join([f"{prefix} question: ", record["question"]]),
        "targets": record[key][0],
        "answers": record[key],
    }


# By name: TFDS data set, number of training examples (the rest is for validation), TFDS split for
# test, first preprocessing step, metric.
TASKS = {
    "trivia_qa_open": (
        "trivia_qa/unfiltered.nocontext:1.1.0",
        78_785,
        "validation",
        trivia_qa,
        metrics.trivia_qa,
    ),
    "natural_questions_open": (
        "natural_questions_open:1.0.0",
        79_168,
        "validation",
        functools.partial(first_answer, prefix="nq", key="answer"),
        metrics.squad,
    ),
    "web_questions_open": (
        "web_questions:1.0.0",
        3_417,
        "test",
        functools.partial(first_answer, prefix="wq", key="answers"),
        metrics.squad,
    ),
}

for name, (data_set, train_examples, test_split, as_text, metric) in TASKS.items():
    seqio.TaskRegistry.add(
        name,
        source=seqio.TfdsDataSource(
            data_set,
            splits={
                "train": f"train[:{train_examples}]",
                "validation": f"train[{train_examples}:]",
                "test": test_split,
            },
        ),
        preprocessors=[as_text, *TEXT_TO_TEXT],
        postprocess_fn=t5.data.postprocessors.qa,
        output_features=T5_FEATURES,
        metric_fns=[metric],
    )

seqio.MixtureRegistry.add(
    "closed_book_qa", [(name, float(examples)) for name, (_, examples, *_) in TASKS.items()]
)
