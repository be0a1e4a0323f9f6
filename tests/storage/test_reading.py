"""Byte ranges and local copies of files, on a disk and in a bucket."""

import errno
from pathlib import Path

import pytest

from switch_jax.storage import (
    file_sizes,
    in_bucket,
    local_copies,
    local_copy,
    read_bytes,
    read_range,
    reading,
)


def test_a_file_and_a_range_of_it(storage):
    file = storage / "a b#c.txt"
    for content in (b"0123456789", b"abcdefghij"):
        file.write_bytes(content)
        assert read_bytes(file) == content
        assert read_range(str(file), 2, 5) == content[2:5]
        assert read_range(str(file), 0, 10) == content
        assert read_range(str(file), 9, 10) == content[9:]


def test_what_cannot_be_read_is_an_error_with_its_name(storage):
    file, absent = storage / "x.txt", storage / "none.txt"
    file.write_bytes(b"012")
    for read, of, code in (
        (lambda: read_range(str(file), 2, 5), file, errno.ENODATA),
        (lambda: read_range(str(file), 7, 9), file, errno.ENODATA),
        (lambda: read_range(str(absent), 0, 1), absent, errno.ENOENT),
        (lambda: read_bytes(absent), absent, errno.ENOENT),
    ):
        with pytest.raises(OSError) as error:
            read()
        assert (error.value.errno, error.value.filename) == (code, str(of))


def test_copies_of_files_are_there_for_a_while(storage, monkeypatch):
    monkeypatch.setattr(reading, "_AT_A_TIME", 3)
    files = [storage / "a" / "x.gz", storage / "b" / "x.gz"]
    for file, content in zip(files, (b"0123456", b""), strict=True):
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
    with local_copies([str(file) for file in files]) as copies:
        assert [Path(copy).read_bytes() for copy in copies] == [b"0123456", b""]
        assert [Path(copy).name for copy in copies] == ["x.gz", "x.gz"]
    assert all(Path(copy).exists() == (not in_bucket(storage)) for copy in copies)


def test_a_copy_is_of_the_file_as_it_is_now(bucket_path):
    file = bucket_path / "x.gz"
    for content in (b"short", b"other", b"longer than before"):
        file.write_bytes(content)
        file_sizes([str(file)])  # remembers the first one
        for _ in range(2):
            assert Path(local_copy(file)).read_bytes() == content
        with local_copies([str(file)]) as (copy,):
            assert Path(copy).read_bytes() == content


def test_a_copy_that_finds_no_room_names_the_file(bucket_path, monkeypatch):
    (bucket_path / "x.gz").write_bytes(b"x")

    def open_nothing(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", open_nothing)
    with pytest.raises(OSError, match="No space left on device") as error:
        with local_copies([str(bucket_path / "x.gz")]):
            pass
    assert (error.value.errno, error.value.filename) == (errno.ENOSPC, f"{bucket_path}/x.gz")
