"""Files cut into pieces: all bytes once, whole lines and records, whatever the sizes."""

import random

import pytest
import tensorflow as tf

import switch_jax.data  # noqa: F401  TensorFlow starts quietly
from switch_jax.data import pieces
from switch_jax.data.pieces import Extent, Lines, Pieces, Records


def lines_of(rng):
    """Text of lines of 0 to 400 bytes, with or without a newline at its end."""
    lines = [bytes(rng.choices(b"ab \r", k=rng.choice([0, 1, 40, 400]))) for _ in range(60)]
    return b"\n".join(lines) + rng.choice([b"", b"\n"])


def records_of(rng, path):
    """TFRecords of noise, of zeros, and of what itself looks like text, in a file."""
    with tf.io.TFRecordWriter(str(path)) as file:
        for _ in range(60):
            size = rng.choice([0, 1, 40, 3000])
            file.write(rng.choice([rng.randbytes(size), bytes(size), b"\n" * size]))
    return path.read_bytes()


@pytest.mark.parametrize("seed", range(8))
def test_pieces_are_whole_lines_and_together_the_file(tmp_path, monkeypatch, seed):
    rng, path = random.Random(seed), tmp_path / "lines.txt"
    text = lines_of(rng)
    path.write_bytes(text)
    monkeypatch.setattr(pieces, "MOST_BYTES", rng.choice([1, 7, 100, 10**6]))
    cut = Pieces([Extent(str(path), 0, len(text))], Lines(), shares=rng.choice([1, 8]))
    read = [cut.read(number) for number in range(len(cut))]
    assert all(not piece or piece.endswith(b"\n") for piece in read)
    assert b"".join(read).splitlines() == text.splitlines()


@pytest.mark.parametrize("seed", range(8))
def test_pieces_are_whole_records_and_together_the_file(tmp_path, monkeypatch, seed):
    rng, path = random.Random(seed), tmp_path / "records"
    written = records_of(rng, path)
    monkeypatch.setattr(pieces, "MOST_BYTES", rng.choice([30, 100, 5000]))
    cut = Pieces([Extent(str(path), 0, len(written))], Records(), shares=rng.choice([1, 8]))
    read = [cut.read(number) for number in range(len(cut))]
    assert b"".join(read) == written
    expected = list(tf.data.TFRecordDataset(str(path)).as_numpy_iterator())
    found = []
    for piece in filter(None, read):
        (tmp_path / "piece").write_bytes(piece)
        found += tf.data.TFRecordDataset(str(tmp_path / "piece")).as_numpy_iterator()
    assert found == expected


def test_a_part_of_a_file_and_several_files(tmp_path, monkeypatch):
    monkeypatch.setattr(pieces, "MOST_BYTES", 4)
    for name in ("a", "b"):
        (tmp_path / name).write_text(f"header\n{name}1\n{name}22\n{name}333\n")
    files = [str(tmp_path / name) for name in ("a", "b")]
    begin = Lines().offset(files[0], 1)
    end = Lines().offset(files[0], 3)
    assert (begin, end) == (7, 14)
    cut = Pieces([Extent(file, begin, end) for file in files], Lines(), shares=1)
    assert b"".join(map(cut.read, range(len(cut)))) == b"a1\na22\nb1\nb22\n"
    assert [cut.file(number) for number in (0, len(cut) - 1)] == files


def test_where_a_record_begins(tmp_path):
    lengths = [5, 0, 300]
    with tf.io.TFRecordWriter(str(tmp_path / "records")) as file:
        for length in lengths:
            file.write(b"x" * length)
    # 8 bytes of length, 4 of its checksum, the data, 4 of theirs.
    places = [Records().offset(str(tmp_path / "records"), number) for number in range(4)]
    assert places == [0, 21, 37, 353]


def test_a_long_line_is_read_by_the_piece_it_begins_in_alone(tmp_path, monkeypatch):
    read = []
    own = pieces.os.pread
    monkeypatch.setattr(pieces.os, "pread", lambda fd, n, at: read.append(n) or own(fd, n, at))
    text = b"short\n" + b"x" * 4_000_000 + b"\nshort\n"
    (tmp_path / "long.txt").write_bytes(text)
    cut = Pieces([Extent(str(tmp_path / "long.txt"), 0, len(text))], Lines(), shares=1)
    assert b"".join(map(cut.read, range(len(cut)))) == text
    assert sum(read) < 3 * len(text)
