"""Byte ranges of files, on a disk and in a bucket."""

import errno

import pytest

from switch_jax.storage import read_range


def test_a_range_and_the_version_of_its_file(storage):
    file = storage / "a b#c.txt"
    file.write_bytes(b"0123456789")
    first = read_range(str(file), 2, 5)
    assert first.data == b"234"
    whole = read_range(str(file), 0, 10)
    assert (whole.data, whole.version) == (b"0123456789", first.version)
    file.write_bytes(b"abcdefghij")
    again = read_range(str(file), 9, 10)
    assert again.data == b"j" and again.version != first.version


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
