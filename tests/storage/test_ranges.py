"""Byte ranges of files, on a disk and in a bucket."""

import errno

import pytest

from switch_jax.storage import read_range


def test_a_range_of_a_file(storage):
    file = storage / "a b#c.txt"
    file.write_bytes(b"0123456789")
    assert read_range(str(file), 2, 5) == b"234"
    assert read_range(str(file), 0, 10) == b"0123456789"
    file.write_bytes(b"abcdefghij")
    assert read_range(str(file), 9, 10) == b"j"


@pytest.mark.parametrize(
    ("name", "begin", "end", "code"),
    [
        ("x.txt", 2, 5, errno.ENODATA),
        ("x.txt", 7, 9, errno.ENODATA),
        ("none.txt", 0, 1, errno.ENOENT),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_name(storage, name, begin, end, code):
    (storage / "x.txt").write_bytes(b"012")
    with pytest.raises(OSError) as error:
        read_range(str(storage / name), begin, end)
    assert (error.value.errno, error.value.filename) == (code, str(storage / name))
