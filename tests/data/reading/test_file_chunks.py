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


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("format", "write", "reader", "chunk_bytes"),
    [
        (TextLines(), write_lines, tf.data.TextLineDataset, [1, 7, 100, 10**6]),
        (TFRecords(), write_records, tf.data.TFRecordDataset, [30, 100, 5000]),
    ],
)
def test_chunks_are_whole_examples_and_together_the_file(
    tmp_path, monkeypatch, seed, format, write, reader, chunk_bytes
):
    rng, path = random.Random(seed), tmp_path / "whole"
    write(rng, path)
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", rng.choice(chunk_bytes))
    whole = ByteRange(str(path), 0, path.stat().st_size)
    chunks = FileChunks([whole], format, num_parts=rng.choice([1, 8]))
    read = [chunks.read(chunk) for chunk in range(len(chunks))]
    # The last line of a chunk is ended.
    assert b"".join(read) in (path.read_bytes(), path.read_bytes() + b"\n" * (write == write_lines))

    def examples(path):
        return list(reader(str(path)).as_numpy_iterator())

    found = []
    for chunk in filter(None, read):
        (tmp_path / "chunk").write_bytes(chunk)
        found += examples(tmp_path / "chunk")
    assert found == examples(path)


def test_a_part_of_a_file_and_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(file_chunks, "MAX_CHUNK_BYTES", 4)
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"header\n{name}1\n{name}22\n{name}333\n")
    files = [str(tmp_path / name) for name in ("a", "b")]
    whole = ByteRange(files[0], 0, 19)
    begin, end = (TextLines().offset(whole, index) for index in (1, 3))
    assert (begin, end) == (7, 14)
    assert TextLines().part(whole, 1, 2) == ByteRange(files[0], 7, 14)
    chunks = FileChunks([ByteRange(file, begin, end) for file in files], TextLines(), num_parts=1)
    assert b"".join(map(chunks.read, range(len(chunks)))) == b"a1\na22\nb1\nb22\n"


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
