import pytest

from switch_jax.storage import LostLeaseError, appended, appended_file, list_names, read_appended


def test_what_is_appended_comes_back_in_order_also_by_the_next_process(storage, monkeypatch):
    monkeypatch.setattr(appended, "PART_BYTES", 10)
    lines = [f"line {i}\n".encode() for i in range(12)]
    file = appended_file(storage / "log")
    for i, line in enumerate(lines):
        if i in (3, 4):
            file = appended_file(storage / "log")
        file.append(line)
        assert read_appended(storage / "log") == b"".join(lines[: i + 1])


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


def test_a_file_that_is_not_there(storage):
    with pytest.raises(FileNotFoundError):
        read_appended(storage / "log")
