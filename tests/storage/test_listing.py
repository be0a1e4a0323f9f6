"""What is there, which files match a pattern, and how large they are, on a disk and in a bucket."""

import errno
import glob
import os

import pytest

from switch_jax.storage import (
    exists,
    file_at,
    file_sizes,
    file_system,
    is_folder,
    list_names,
    matching,
    relist,
)

NAMES = ["a.txt", "ab.txt", "b.txt", "a.txt.gz", "sub/a.txt", "sub/deep/a.txt", "other/c.txt"]


def write(folder):
    for size, name in enumerate(NAMES):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(bytes(size))


def test_what_is_in_a_folder(storage):
    write(storage)
    (storage / "sub" / "sub").mkdir(exist_ok=True)
    (storage / "sub" / "sub" / "x").write_text("a folder and what is in it may have one name")
    assert list_names(storage) == sorted([*NAMES[:4], "other", "sub"])
    assert list_names(storage / "sub") == ["a.txt", "deep", "sub"]
    assert list_names(storage / "absent") == []
    assert is_folder(storage / "sub") and not is_folder(storage / "a.txt")
    assert exists(storage / "a.txt") and not exists(storage / "absent")
    with pytest.raises(OSError, match="it is a folder, a pipe or a device"):
        file_at(str(storage / "sub"))


def test_links_to_nothing_and_to_themselves_hide_no_other_file(tmp_path):
    (tmp_path / "gone").symlink_to(tmp_path / "absent")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    (tmp_path / "x").write_text("x")
    assert list_names(tmp_path) == ["circle", "gone", "x"]


def test_a_pattern_matches_what_it_matches_on_a_disk(tmp_path, bucket_path):
    write(tmp_path)
    write(bucket_path)
    for pattern in ("a*.txt", "*", "?.txt", "[ab].txt", "*/a.txt", "*/*/*", "z*"):
        paths = [path for path in glob.glob(f"{tmp_path}/{pattern}") if os.path.isfile(path)]
        expected = sorted(path.replace(str(tmp_path), str(bucket_path)) for path in paths)
        assert matching(f"{bucket_path}/{pattern}") == expected, pattern
    assert matching("gs://buck*/x.txt") == [], "no bucket is listed for a part of its name"


def test_files_are_listed_once_and_without_what_stands_for_a_folder(bucket_path, storage_proxy):
    write(bucket_path)
    file_system(bucket_path).pipe_file(f"{bucket_path}/", b"")
    before = len(storage_proxy.requests)
    urls = [f"{bucket_path}/{name}" for name in sorted(NAMES[:4])]
    for _ in range(2):
        assert matching(f"{bucket_path}/*") == urls
        assert file_sizes(urls) == [0, 3, 1, 2]
    made = [request for request in storage_proxy.requests[before:] if bucket_path.name in request]
    assert len(made) == 1


def test_sizes_are_those_written(storage):
    write(storage)
    paths = [str(storage / name) for name in NAMES]
    assert file_sizes(paths) == [0, 1, 2, 3, 4, 5, 6]
    with pytest.raises(FileNotFoundError) as error:
        file_sizes([*paths, str(storage / "none.txt")])
    assert (error.value.errno, error.value.filename) == (errno.ENOENT, str(storage / "none.txt"))
    (storage / "a.txt").write_bytes(b"new")
    relist(paths[:1])
    assert file_sizes(paths[:1]) == [3]


def test_a_file_that_is_written_again_has_another_version(storage):
    file = storage / "x.txt"
    file.write_bytes(b"123")
    first = file_at(str(file))
    assert first == file_at(str(file)) and first.size == 3
    file.write_bytes(b"123")
    assert file_at(str(file)).version != first.version
