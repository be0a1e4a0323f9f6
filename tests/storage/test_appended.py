import time

import pytest
from etils import epath

from switch_jax.storage import (
    LostLeaseError,
    appended,
    appended_file,
    last_written,
    list_names,
    read_appended,
)
from switch_jax.storage.locking.conditional_writes import SharedObject


def test_what_is_appended_comes_back_in_order_also_by_the_next_process(storage, monkeypatch):
    monkeypatch.setattr(appended, "PART_BYTES", 10)
    lines = [f"line {i}\n".encode() for i in range(12)]
    file = appended_file(storage / "log")
    for i, line in enumerate(lines):
        if i in (3, 4):
            file = appended_file(storage / "log")
        file.append(line)
        assert read_appended(storage / "log") == b"".join(lines[: i + 1])
    assert 0 <= time.time() - last_written(storage / "log") < 3600  # seconds


def test_an_addition_costs_the_same_however_long_the_file_is(bucket_path, monkeypatch):
    monkeypatch.setattr(appended, "PART_BYTES", 100)
    file, written = appended_file(bucket_path / "log"), []
    for _ in range(30):
        file.append(b"x" * 49 + b"\n")
        written.append(len(file._last.content))
    assert set(written) == {50, 100}
    assert list_names(bucket_path) == ["log", *(f"log.{i:06}" for i in range(1, 15))]
    (bucket_path / "log.bak").write_text("not a part")
    assert len(read_appended(bucket_path / "log")) == 30 * 50


def test_two_processes_that_append_do_not_mix(bucket_path):
    one, other = appended_file(bucket_path / "log"), appended_file(bucket_path / "log")
    one.append(b"a\n")
    other.append(b"b\n")
    with pytest.raises(LostLeaseError, match="log was changed by another process while this one"):
        one.append(b"c\n")
    assert read_appended(bucket_path / "log") == b"a\nb\n"


def test_a_file_may_move_from_a_bucket_to_a_disk_and_back(bucket_path, tmp_path, monkeypatch):
    monkeypatch.setattr(appended, "PART_BYTES", 8)
    lines = [f"line {i}\n".encode() for i in range(6)]
    for line in lines[:4]:
        appended_file(bucket_path / "log").append(line)
    disk = epath.Path(tmp_path)
    for name in list_names(bucket_path):
        (disk / name).write_bytes((bucket_path / name).read_bytes())
    appended_file(disk / "log").append(lines[4])
    assert read_appended(disk / "log") == b"".join(lines[:5])
    for name in list_names(disk):
        (bucket_path / "back" / name).write_bytes((disk / name).read_bytes())
    appended_file(bucket_path / "back" / "log").append(lines[5])
    assert read_appended(bucket_path / "back" / "log") == b"".join(lines)


@pytest.mark.parametrize(("before", "after"), [(b'{"a', b'{"a\n'), (b"a\n", b"a\n"), (b"", b"")])
def test_a_half_written_line_is_ended(storage, before, after):
    """As one that a killed process left on a disk, from where the file may have moved."""
    (storage / "log").parent.mkdir(parents=True, exist_ok=True)
    (storage / "log").write_bytes(before)
    file = appended_file(storage / "log")
    file.end_line()
    assert read_appended(storage / "log") == after
    file.append(b"next\n")
    assert read_appended(storage / "log") == after + b"next\n"


def test_an_addition_that_was_written_but_failed_is_seen(bucket_path, monkeypatch):
    file = appended_file(bucket_path / "log")
    file.append(b"a\n")
    write = SharedObject.write

    def fail_afterwards(*args):
        write(*args)
        raise OSError("the answer was lost")

    with monkeypatch.context() as failing:
        failing.setattr(SharedObject, "write", fail_afterwards)
        with pytest.raises(OSError, match="lost"):
            file.append(b"b\n")
    file.append(b"c\n")
    assert read_appended(bucket_path / "log") == b"a\nb\nc\n"


def test_a_file_that_is_not_there(storage):
    assert last_written(storage / "log") is None
    with pytest.raises(FileNotFoundError):
        read_appended(storage / "log")
