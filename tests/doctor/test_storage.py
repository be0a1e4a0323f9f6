"""A checkpoint that comes back, one that does not, and a disk without room."""

import errno
import os
from pathlib import Path

import pytest
from etils import epath
from orbax.checkpoint import v1 as ocp

from switch_jax.checkpointing import Checkpoints
from switch_jax.config import MeshConfig
from switch_jax.doctor import storage
from switch_jax.doctor.checks import Verdict
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.storage import list_names


@pytest.fixture
def found(tmp_path, monkeypatch):
    """found() is what the check finds on eight devices, with 4 MiB; nothing may be left of it."""
    monkeypatch.setattr(storage, "BYTES", 4 << 20)
    monkeypatch.setattr(storage, "BYTES_OF_A_PROCESS", 1 << 20)
    monkeypatch.setattr(storage, "_forget", lambda folder: size_of.append(_bytes_in(folder)))
    size_of = []

    def found():
        mesh = make_mesh(MeshConfig(2, 2, 2))
        finding = storage.checkpoint(mesh, epath.Path(tmp_path / "run"))
        assert list(tmp_path.iterdir()) == []
        return finding, size_of

    return found


def _bytes_in(folder):
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def test_a_checkpoint_comes_back(found):
    finding, (written,) = found()
    assert finding.verdict == Verdict.OK, finding
    numbers = finding.numbers
    assert numbers["bytes"] == 4 << 20 <= written  # no compression made it smaller
    assert numbers["write_bytes_per_second"] == numbers["bytes"] / numbers["save_seconds"]
    assert numbers["read_bytes_per_second"] == numbers["bytes"] / numbers["restore_seconds"]


def test_no_room_is_reported_in_words(found, monkeypatch):
    def full(*args, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ocp.training.Checkpointer, "save_async", full)
    text = str(found()[0])
    assert text.startswith("failed   : 4 MB did not come back: checkpoints cannot be ")
    assert "No space left on device" in text
    assert text.endswith(
        "; make room there, or set MODEL_DIR to a place that can be written and read"
    )


def test_a_bit_that_differs_is_reported_in_words(found, monkeypatch):
    restore = Checkpoints.restore

    def with_another_bit(self, shapes):
        restored = restore(self, shapes)
        state = restored.state | {"array_3": restored.state["array_3"].at[1, 2, 3].add(1)}
        return restored._replace(state=state)

    monkeypatch.setattr(Checkpoints, "restore", with_another_bit)
    text = str(found()[0])
    assert text.startswith("failed   : comes back with other numbers; do not keep runs")


def test_files_are_taken_out_of_memory_and_stay(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_bytes(b"content")
    storage._forget(epath.Path(tmp_path))
    assert (tmp_path / "a" / "file").read_bytes() == b"content"


def test_a_checkpoint_comes_back_from_a_bucket(bucket_path, monkeypatch):
    monkeypatch.setattr(storage, "BYTES", 1 << 20)
    monkeypatch.setattr(storage, "BYTES_OF_A_PROCESS", 1 << 20)
    mesh = make_mesh(MeshConfig(1, 2, 1))
    finding = storage.checkpoint(mesh, bucket_path / "run")
    assert finding.verdict == Verdict.OK, finding
    assert list_names(bucket_path) == []
