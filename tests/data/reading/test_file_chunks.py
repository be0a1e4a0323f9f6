"""Files cut into chunks: all bytes once, whole lines and records, whatever the sizes."""

import random

import pytest
import tensorflow as tf

from switch_jax.data.reading import file_chunks
from switch_jax.data.reading.file_chunks import ByteRange, FileChunks, TextLines, TFRecords
from switch_jax.storage import read_range


def write_lines(rng, path):
    """Lines of 0 to 400 bytes, with or without a newline at their end."""
    lines = [bytes(rng.choices(b"ab \r", k=rng.choice([0, 1, 40, 400]))) for _ in range(60)]
    path.write_bytes(b"\n".join(lines) + rng.choice([b"", b"\n"]))


def write_records(rng, path):
    """TFRecords with random bytes, zeros, or newlines."""
    with tf.io.TFRecordWriter(str(path)) as file:
        for _ in range(60):
            size = rng.choice([0, 1, 40, 3000])
            file.write(rng.choice([rng.randbytes(size), bytes(size), b"\n" * size]))


@pytest.mark.parametrize(
    ("format", "write", "reader", "chunk_bytes", "num_parts"),
    [
        (TextLines(), write_lines, tf.data.TextLineDataset, 1, 1),
        (TextLines(), write_lines, tf.data.TextLineDataset, 100, 1),
        (TextLines(), write_lines, tf.data.TextLineDataset, 10**6, 8),
        (TFRecords(), write_records, tf.data.TFRecordDataset, 30, 1),
        (TFRecords(), write_records, tf.data.TFRecordDataset, 5000, 8),
    ],
)
def test_chunks_are_whole_examples_and_together_the_file(
    tmp_path, monkeypatch, format, write, reader, chunk_bytes, num_parts
):
    path = tmp_path / "whole"
    write(random.Random(0), path)
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", chunk_bytes)
    whole = ByteRange(str(path), 0, path.stat().st_size)
    chunks = FileChunks([whole], format, num_parts)
    read = [chunks.read(chunk) for chunk in range(len(chunks))]
    # The last line of a chunk is ended.
    assert b"".join(read) in (path.read_bytes(), path.read_bytes() + b"\n" * (write == write_lines))
    files = [tmp_path / str(number) for number, chunk in enumerate(read) if chunk]
    for file, chunk in zip(files, filter(None, read), strict=True):
        file.write_bytes(chunk)
    found = reader(list(map(str, files))).as_numpy_iterator()
    assert list(found) == list(reader(str(path)).as_numpy_iterator())


def test_where_a_record_begins(tmp_path):
    lengths = [5, 0, 300]
    with tf.io.TFRecordWriter(str(tmp_path / "records")) as file:
        for length in lengths:
            file.write(b"x" * length)
    # 8 bytes of length, 4 of its checksum, the data, 4 of theirs.
    file = ByteRange(str(tmp_path / "records"), 0, 353)
    starts = [TFRecords().offset(file, index) for index in range(4)]
    assert starts == [0, 21, 37, 353]
    with open(file.name, "r+b") as damaged:
        damaged.seek(21)
        damaged.write(b"\xff" * 8)
    with pytest.raises(OSError, match=f"record at byte 21 is shorter than the {2**64 - 1} bytes"):
        TFRecords().offset(file, 2)


def test_a_long_line_is_read_only_with_the_chunk_in_which_it_begins(tmp_path, monkeypatch):
    sizes = []

    def read(file, begin, end):
        sizes.append(end - begin)
        return read_range(file, begin, end)

    text = b"short\n" + b"x" * 4_000_000 + b"\nshort\n"
    (tmp_path / "long.txt").write_bytes(text)
    monkeypatch.setattr(file_chunks, "read_range", read)
    chunks = FileChunks(
        [ByteRange(str(tmp_path / "long.txt"), 0, len(text))], TextLines(), num_parts=1
    )
    assert b"".join(map(chunks.read, range(len(chunks)))) == text
    assert sum(sizes) < 3 * len(text)
