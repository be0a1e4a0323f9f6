"""The private names of seqio that are used."""

import pytest
import seqio
import tensorflow as tf

from switch_jax.data import seqio_internals
from switch_jax.data.registry import provider
from switch_jax.tasks import english

SOURCE = provider("bible_span_corruption").source
LOADER = seqio.LazyTfdsLoader("anli/r1:0.1.0", split_map={"dev": "validation"})


def test_what_the_functions_return():
    pattern = str(english.DATA / "bible.train.txt.gz")
    assert seqio_internals.file_patterns(SOURCE, "train") == [pattern]
    assert seqio_internals.file_reader(SOURCE) is english.read_lines
    assert seqio_internals.files_at_once(SOURCE, "train") == (16, 16)
    assert seqio_internals.num_header_lines(seqio.TextLineDataSource({"train": "x"}, 3)) == 3
    assert seqio_internals.tfds_split(LOADER, "dev") == "validation"
    assert seqio_internals.tfds_decoders(LOADER) is None
    assert not seqio_internals.is_cache(SOURCE)
    seqio.set_tfds_data_dir_override("/some/folder")
    try:
        assert seqio_internals.tfds_data_dir() == "/some/folder"
    finally:
        seqio.set_tfds_data_dir_override(None)


def test_steps_and_lengths():
    task = provider("bible_span_corruption")
    vocabulary = task.output_features["targets"].vocabulary
    lines = tf.data.Dataset.from_tensors("judge my vow")
    (found,) = seqio_internals.preprocess(task, lines, task.preprocessors[:2]).as_numpy_iterator()
    assert found["targets"].tolist() == vocabulary.encode("judge my vow")
    ids = tf.data.Dataset.from_tensors({"inputs": [5, 6, 7], "targets": [8, 9, 1]})
    (cut,) = seqio_internals.validate_and_trim(
        task, ids, {"inputs": 2, "targets": 3}
    ).as_numpy_iterator()
    assert (cut["inputs"].tolist(), cut["targets"].tolist()) == ([5, 6], [8, 9, 1])


def test_the_step_that_has_raised_an_error():
    def fails(dataset, output_features):
        raise ValueError(output_features["targets"])

    task = provider("bible_span_corruption")
    lines = tf.data.Dataset.from_tensors("judge my vow")
    with pytest.raises(ValueError) as raised:  # the step gets the features by a partial
        seqio_internals.preprocess(task, lines, [english.as_targets, fails])
    assert seqio_internals.failed_step(raised.value) is fails
    assert seqio_internals.failed_step(ValueError()) is None
