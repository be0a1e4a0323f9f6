"""Writing that fails is reported in a line, and what was saved before stays."""

import errno
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils

from switch_jax.checkpointing import Checkpoints, orbax_patches
from switch_jax.run_folder import RunFolder
from switch_jax.utils.errors import TransientError, UserError
from tests.checkpointing.small_state import ABSTRACT, assert_is, notes_of, save_steps, state_of
from tests.storage.slow_proxy import Faults
from tests.waiting import HANGS


def test_a_save_that_the_storage_fails_may_pass(tmp_path, monkeypatch):
    """Also where Orbax's threads cannot be released, by a name that has moved."""

    def save_async(*_, **__):
        try:
            raise OSError(errno.EIO, "Input/output error", "x")
        except OSError as error:
            raise ValueError("no checkpoint") from error

    checkpoints = Checkpoints(RunFolder(tmp_path), 3)
    monkeypatch.setattr(checkpoints._checkpointer, "save_async", save_async)
    monkeypatch.delattr(orbax_patches.future, "set_signals")
    with pytest.raises(TransientError, match="error: 'x'; what was saved before is still there; t"):
        checkpoints.save(1, {"x": jnp.arange(3.0)}, {}, None)


FAILING = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import tests.conftest  # eight devices
from switch_jax.utils.errors import UserError
from tests.checkpointing.small_state import ABSTRACT, assert_is, notes_of, save_steps, state_of

folder = Path(sys.argv[1])
checkpoints = save_steps(folder, [1])

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

def save(step):
    checkpoints.save(step, state_of(step), notes_of(step), None)

def fail(step):
    try:
        save(step)
        checkpoints.wait()
        print("written")
    except UserError as error:
        print(error)

limit(100_000)
save(2)
while True:  # for as long as the process may
    time.sleep(0.01)
    try:
        checkpoints.check()
    except UserError as error:
        print(error)
        break
fail(2)
fail(2)
limit(resource.RLIM_INFINITY)
assert_is(checkpoints.restore(ABSTRACT()), 1)
assert checkpoints.steps() == [1]
save(2)
checkpoints.wait()
assert_is(checkpoints.restore(ABSTRACT()), 2)

(folder / "checkpoints").rename(folder / "away")
(folder / "checkpoints").touch()
fail(3)
fail(3)
checkpoints.close()
print("end", flush=True)
"""


def test_what_cannot_be_written_is_reported_and_the_checkpoint_before_it_stays(tmp_path):
    """First a file that is too large, then a step's folder that cannot be made.

    The process ends by itself, though threads of Orbax wait for that folder.
    """
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", FAILING, str(tmp_path), root]
    done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "File too large" not in done.stderr
    *lines, end = done.stdout.splitlines()
    assert end == "end"
    for line in lines:
        assert line.startswith(f"checkpoints cannot be written to {tmp_path}/checkpoints: ")
        assert line.endswith("what was saved before is still there")
    causes = ["File too large"] * 3 + ["Not a directory"] * 2
    assert [cause in line for cause, line in zip(causes, lines, strict=True)] == [True] * 5
    (tmp_path / "checkpoints").unlink()
    (tmp_path / "away").rename(tmp_path / "checkpoints")
    assert_is(Checkpoints(RunFolder(tmp_path), 3).restore(ABSTRACT()), 2)


def test_a_full_disk_is_reported_and_the_checkpoint_before_it_stays(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("takes the right to mount a file system")
    try:
        checkpoints = save_steps(tmp_path, [1])
        for _ in range(2):
            with pytest.raises(UserError, match="No space left on device.* is still there$"):
                checkpoints.save(2, state_of(2), notes_of(2), None)
                checkpoints.wait()
        assert_is(checkpoints.restore(ABSTRACT()), 1)
        assert checkpoints.steps() == [1]
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_notes_that_cannot_be_amended_are_reported(tmp_path):
    checkpoints = save_steps(tmp_path, [1])
    (tmp_path / "amended").touch()
    with pytest.raises(UserError, match=r"amended/1.json cannot be written: (Not|File)"):
        checkpoints.amend(1, {})
    with pytest.raises(UserError, match=r"amended/2.json cannot be written: Not a directory"):
        checkpoints.save(2, state_of(2), notes_of(2), None)


def test_a_save_takes_what_it_has_written_for_its_own(faulty_storage, bucket_path, monkeypatch):
    """In a bucket that loses answers."""
    retries = {"max_retries": 100, "initial_delay": "10ms", "max_delay": "10ms"}
    defaults = tensorstore_utils._DEFAULT_OCDBT_TS_CONTEXT
    monkeypatch.setitem(defaults, "gcs_request_retries", retries)
    faults = faulty_storage.num_faults
    of_nine = ["lost", None, "cut", "lost", None, None, "cut", None, "lost"]
    faulty_storage.faults = Faults(of_nine, of="^POST .*ifGenerationMatch")
    save_steps(bucket_path, range(1, 4)).close()
    assert faulty_storage.num_faults == faults + 5
