"""The streams of each kind of source have the examples that seqio reads from it as a whole."""

import itertools

import pytest
import seqio
import tensorflow as tf
import tensorflow_datasets as tfds

from switch_jax.data.reading import file_chunks, sources
from switch_jax.data.reading.file_chunks import TextLines, TFRecords
from switch_jax.data.reading.position import Cursor
from switch_jax.data.reading.sources import open_source, source_files
from tests.data.helpers import ANLI_RECORD, features, prepare, records, task_examples, write_records

SENTENCES = [f"sentence {n} of forty" for n in range(40)]


def tfds_slice(folder):
    prepare(
        folder,
        "anli",
        "r3",
        "0.1.0",
        {"train": [ANLI_RECORD | {"hypothesis": s} for s in SENTENCES], "test": [ANLI_RECORD]},
    )
    splits = {"train": "train[5:25]", "validation": "train[25:]"}
    return seqio.TfdsDataSource("anli/r3:0.1.0", str(folder), splits), "hypothesis", TFRecords


def tfds_partly_decoded(folder):
    source, feature, _ = tfds_slice(folder)
    decoders = tfds.decode.PartialDecoding({feature: True})
    return (
        seqio.TfdsDataSource("anli/r3:0.1.0", str(folder), source._splits, decoders=decoders),
        feature,
        type(None),
    )


def lines_with_header(folder):
    for number in range(2):
        text = "\n".join(["one", "two", *SENTENCES[20 * number : 20 * number + 20]])
        (folder / f"part{number}.txt").write_text(text)
    return seqio.TextLineDataSource({"train": str(folder / "part*.txt")}, 2), None, TextLines


def protos(folder):
    with tf.io.TFRecordWriter(str(folder / "x.tfrecord")) as file:
        for sentence in SENTENCES:
            file.write(sentence.encode())
    files = {"train": str(folder / "x.tfrecord")}
    return seqio.ProtoDataSource(files, lambda proto: {"text": proto}), "text", TFRecords


@pytest.mark.parametrize("make", [tfds_slice, tfds_partly_decoded, lines_with_header, protos])
def test_an_epoch_has_the_examples_of_the_source(tmp_path, monkeypatch, register, make):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 100)
    source, feature, format = make(tmp_path)
    assert isinstance(source_files(source, "train").format, format)
    vocabulary = seqio.ByteVocabulary()

    @seqio.map_over_dataset
    def of_text(example):
        ids = vocabulary.encode_tf(example[feature] if feature else example)
        return {"inputs": ids, "targets": ids}

    task = register("of_kind", source, [of_text], features(vocabulary, add_eos=False))
    expected = [
        (example[feature] if feature else example).decode()
        for example in source.get_dataset("train", shuffle=False).as_numpy_iterator()
    ]
    examples = task_examples(task, 2, length=100)
    found = []
    for stream in range(2):
        read = examples.read(stream, Cursor())
        epoch = itertools.takewhile(lambda read: read[1].epoch == 0, read)
        found += [vocabulary.decode(example["inputs"].tolist()) for example, _ in epoch]
    assert sorted(found) == sorted(expected)
    assert found != expected


def many_examples(folder):
    """20 files of 17 to 36 examples; 16 files are read at a time, 16 examples of each in turn."""
    for number in range(20):
        rows = ({"number": [100 * number + n]} for n in range(17 + number))
        write_records(folder / f"x{number:02}.tfrecord", rows)
    return records(folder / "x*.tfrecord")


def tfds_shards(folder):
    records = [ANLI_RECORD | {"uid": str(n)} for n in range(400)]
    prepare(folder, "anli", "r3", "0.1.0", {"train": records}, num_shards=20)
    return seqio.TfdsDataSource("anli/r3:0.1.0", str(folder), {"train": "train[30:-10]"})


@pytest.mark.parametrize("make", [many_examples, tfds_shards])
def test_examples_come_in_the_order_of_seqio_and_tfds(tmp_path, monkeypatch, make):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 100)  # blocks of some kilobytes
    source = make(tmp_path)
    expected = list(source.get_dataset("train", shuffle=False).as_numpy_iterator())
    assert list(open_source(source, "train").as_numpy_iterator()) == expected


def test_what_python_code_makes_is_made_once_for_all_streams_and_epochs(register, monkeypatch):
    made = []

    def dataset(split, shuffle_files, seed=None):
        def numbers():
            for number in range(40):
                made.append(number)
                yield [number + 2]

        return tf.data.Dataset.from_generator(
            numbers, output_signature=tf.TensorSpec([1], tf.int32)
        ).map(lambda number: {"inputs": number, "targets": number})

    task = register("counted", seqio.FunctionDataSource(dataset, splits=["train"]), [])

    def read():
        """Numbers and positions of two epochs of four streams."""
        examples = task_examples(task, 4)
        streams = (itertools.islice(examples.read(stream, Cursor()), 20) for stream in range(4))
        return [(int(example["inputs"][0]), at) for some in streams for example, at in some]

    kept = read()
    assert len(made) == 40
    monkeypatch.setattr(sources, "_MAX_KEPT_BYTES", 100)  # 40 numbers of 4 bytes, twice
    made.clear()
    assert read() == kept
    assert len(made) > 4 * 40
