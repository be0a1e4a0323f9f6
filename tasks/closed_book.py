"""Questions answered from memory: TriviaQA, Natural Questions and WebQuestions without a context.

Names, splits and prefixes are those of Roberts et al. 2020 (https://arxiv.org/abs/2002.08910): the
last tenth of the published training examples is for validation, and the published test, or for
want of one validation, examples are for test. Scores are the exact match (`em`) and F1 with the
best of all answers, after the normalisation of TriviaQA's or SQuAD's own script.
"""

import functools

import seqio
import t5.data.postprocessors
import tensorflow as tf
from t5.evaluation import metrics

from switch_jax.tasks.steps import T5_FEATURES, TEXT_TO_TEXT, trivia_qa


@seqio.map_over_dataset
def first_answer(record: dict[str, tf.Tensor], prefix: str, key: str) -> dict[str, tf.Tensor]:
    """The question, the first of its answers, and all of them to be scored against.

    Args:
      record: with 'question', string, and the answers, strings [answers].
      prefix: what the input begins with.
      key: of the answers.
    """
    return {
        "inputs": tf.strings.join([f"{prefix} question: ", record["question"]]),
        "targets": record[key][0],
        "answers": record[key],
    }


# By name: data set, training examples before those for validation, split for test, first step,
# metric.
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

for name, (data_set, examples, test, as_text, metric) in TASKS.items():
    seqio.TaskRegistry.add(
        name,
        source=seqio.TfdsDataSource(
            data_set,
            splits={
                "train": f"train[:{examples}]",
                "validation": f"train[{examples}:]",
                "test": test,
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
