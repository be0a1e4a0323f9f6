"""The shapes of TriviaQA and SuperGLUE on text that lies beside this file: no download.

They are not TriviaQA and SuperGLUE, and their scores compare with no published ones. Questions and
statements come from templates over facts of the World Factbook; every fact that `factbook_qa_open`
asks for stands in the training text of `factbook_span_corruption`, to be learned in pretraining.
`wordnet_wic` pairs example sentences of WordNet. Records have the schema of the data set of the
same shape and go through its preprocessor, postprocessor and metrics: for closed-book questions
those of `trivia_qa_open`, for the others T5's of SuperGLUE. data/README.md gives sources, licences
and how the files were made.
"""

import functools
import gzip
import json
from collections.abc import Callable, Sequence
from typing import Any

import seqio
import t5.data.postprocessors
import tensorflow as tf
import tensorflow_datasets as tfds
from t5.data import glue_utils
from t5.evaluation import metrics

from switch_jax.tasks.english import DATA, VOCABULARY
from switch_jax.tasks.steps import TEXT_TO_TEXT, features, trivia_qa

# By task: the part of SuperGLUE that has its shape, and its number of training examples.
SUPER_GLUE = {
    "factbook_boolq": ("boolq", 558),
    "factbook_cb": ("cb", 558),
    "factbook_multirc": ("multirc", 649),
    "factbook_record": ("record", 299),
    "wordnet_wic": ("wic", 2348),
}


def read_records(
    split: str, shuffle_files: bool, seed: int | None = None, *, name: str, data_set: str
) -> tf.data.Dataset:
    """The records of a split as TFDS gives those of the data set whose schema they have.

    Args:
      split: 'train', 'validation' or 'test'.
      shuffle_files, seed: not used, since a split is one file.
      name: what the names of its files begin with.
      data_set: name in TFDS; nothing but its schema is read.
    """
    schema = tfds.builder(data_set).info.features
    with gzip.open(DATA / f"{name}.{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [schema.encode_example(json.loads(line)) for line in lines]
    written = [schema.serialize_example(record) for record in records]
    return tf.data.Dataset.from_tensor_slices(written).map(schema.deserialize_example)


def add(
    name: str,
    data_set: str,
    as_text: Callable[..., Any],
    postprocess_fn: Callable[..., Any],
    metric_fns: Sequence[Callable[..., Any]],
) -> None:
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            functools.partial(read_records, name=name, data_set=data_set),
            splits=("train", "validation", "test"),
        ),
        preprocessors=[as_text, *TEXT_TO_TEXT],
        postprocess_fn=postprocess_fn,
        output_features=features(VOCABULARY),
        metric_fns=metric_fns,
    )


add(
    "factbook_qa_open",
    "trivia_qa/unfiltered.nocontext:1.1.0",
    trivia_qa,
    t5.data.postprocessors.qa,
    [metrics.trivia_qa],
)

for name, (part, _) in SUPER_GLUE.items():
    config = tfds.text.super_glue.SuperGlue.builder_configs[part]
    add(
        name,
        f"super_glue/{part}:1.0.2",
        glue_utils.get_glue_text_preprocessor(config),
        glue_utils.get_glue_postprocess_fn(config),
        glue_utils.get_super_glue_metric(part),
    )

seqio.MixtureRegistry.add(
    "factbook_super_glue", [(name, float(examples)) for name, (_, examples) in SUPER_GLUE.items()]
)
