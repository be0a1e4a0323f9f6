"""Tasks in the form of TriviaQA and SuperGLUE on data that comes with the library: no download.

They are not TriviaQA and SuperGLUE, and their scores cannot be compared with published ones.
Questions and statements are made from templates and facts of the World Factbook. Each fact that
`factbook_qa_open` asks for is in the training text of `factbook_span_corruption`, so it can be
learned in pretraining. `wordnet_wic` has pairs of example sentences of WordNet.

Records have the schema of the imitated data set and go through the steps and metrics of its task.
tasks/data/README.md has sources and licences, and says how the files were made.
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

from switch_jax.tasks.building_blocks import TEXT_TO_TEXT, features, trivia_qa
from switch_jax.tasks.english import DATA, VOCABULARY

# By task: the part of SuperGLUE that it imitates, and its number of training examples.
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
    """The records of a split, one file, in the form in which TFDS gives those of `data_set`."""
    schema = tfds.builder(data_set).info.features
    with gzip.open(DATA / f"{name}.{split}.jsonl.gz", "rt", encoding="utf-8") as lines:
        records = [schema.encode_example(json.loads(line)) for line in lines]
    serialized = [schema.serialize_example(record) for record in records]
    return tf.data.Dataset.from_tensor_slices(serialized).map(schema.deserialize_example)


def add_task(
    name: str,
    data_set: str,
    as_text: Callable[..., Any],
    postprocess_fn: Callable[..., Any],
    metric_fns: Sequence[Callable[..., Any]],
    files: str | None = None,
) -> None:
    """Registers a task; `files` is the name of those of its records, by default its own."""
    seqio.TaskRegistry.add(
        name,
        source=seqio.FunctionDataSource(
            functools.partial(read_records, name=files or name, data_set=data_set),
            splits=("train", "validation", "test"),
        ),
        preprocessors=[as_text, *TEXT_TO_TEXT],
        postprocess_fn=postprocess_fn,
        output_features=features(VOCABULARY),
        metric_fns=metric_fns,
    )


add_task(
    "factbook_qa_open",
    "trivia_qa/unfiltered.nocontext:1.1.0",
    trivia_qa,
    t5.data.postprocessors.qa,
    [metrics.trivia_qa],
)

for name, (part, _) in SUPER_GLUE.items():
    config = tfds.text.super_glue.SuperGlue.builder_configs[part]
    add_task(
        name,
        f"super_glue/{part}:1.0.2",
        glue_utils.get_glue_text_preprocessor(config),
        glue_utils.get_glue_postprocess_fn(config),
        glue_utils.get_super_glue_metric(part),
    )

seqio.MixtureRegistry.add(
    "factbook_super_glue", [(name, float(examples)) for name, (_, examples) in SUPER_GLUE.items()]
)
