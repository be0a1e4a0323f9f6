"""Writing that fails is reported in a line, and what was saved before stays."""

import errno
import subprocess
import sys
import textwrap
from pathlib import Path

import jax.numpy as jnp
import pytest
from orbax.checkpoint._src.serialization import tensorstore_utils

from switch_jax.checkpointing import Checkpoints, orbax_patches
from switch_jax.run_folder import RunFolder
from switch_jax.utils.errors import TransientError, UserError
from tests.checkpointing.small_state import ABSTRACT, assert_is, notes_of, save_steps, state_of
from tests.storage.slow_proxy import Faults


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


# Saves step 1; then `break_it` makes writing fail; saves step 2, and then restores.
FAILING = """
import resource, shutil, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import tests.conftest  # eight devices
from switch_jax.checkpointing import Checkpoints
from switch_jax.utils.errors import UserError
from tests.checkpointing.small_state import ABSTRACT, assert_is, notes_of, save_steps, state_of

folder = Path(sys.argv[1])
checkpoints = save_steps(folder, [1])
def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
{break_it}
for attempt in range(2):
    try:
        checkpoints.save(2, state_of(2), notes_of(2), None)
        checkpoints.wait()
        print("written")
    except UserError as error:
        print(error)
{mend_it}
try:
    checkpoints.close()
except UserError as error:
    print(error)
print("end", flush=True)
"""
KNOWN = """
import time
checkpoints.save(2, state_of(2), notes_of(2), None)
while True:  # for as long as the process may
    time.sleep(0.01)
    try:
        checkpoints.check()
    except UserError as error:
        print(error)
        break
"""
RESTORE = """
assert_is(checkpoints.restore(ABSTRACT()), 1)
assert checkpoints.steps() == [1]
"""
SAVE_AGAIN = """
checkpoints.save(2, state_of(2), notes_of(2), None)
checkpoints.wait()
assert_is(checkpoints.restore(ABSTRACT()), 2)
"""


def _fail(folder, break_it, mend_it):
    """(lines that a process prints, what it logs); it must end by itself."""
    script = FAILING.format(break_it=break_it, mend_it=mend_it)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(folder), root],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    *lines, end = done.stdout.splitlines()
    assert end == "end"
    return lines, done.stderr


def test_a_file_that_cannot_be_written_is_reported_and_the_checkpoint_before_it_stays(tmp_path):
    lines, log = _fail(
        tmp_path, f"limit(100_000){KNOWN}", f"limit(resource.RLIM_INFINITY)\n{RESTORE}{SAVE_AGAIN}"
    )
    assert len(lines) == 3 and "File too large" not in log
    for line in lines:
        assert line.startswith(f"checkpoints cannot be written to {tmp_path}/checkpoints: ")
        assert "File too large" in line and line.endswith("what was saved before is still there")
    assert_is(Checkpoints(RunFolder(tmp_path), 3).restore(ABSTRACT()), 2)


def test_a_process_ends_though_the_step_s_folder_could_not_be_made(tmp_path):
    away = "(folder / 'checkpoints').rename(folder / 'away'); (folder / 'checkpoints').touch()"
    lines, _ = _fail(tmp_path, away, "")
    assert len(lines) == 2
    for line in lines:
        assert line.startswith(f"checkpoints cannot be written to {tmp_path}/checkpoints: ")
        assert "Not a directory" in line
    (tmp_path / "checkpoints").unlink()
    (tmp_path / "away").rename(tmp_path / "checkpoints")
    assert_is(Checkpoints(RunFolder(tmp_path), 3).restore(ABSTRACT()), 1)


def test_a_full_disk_is_reported_and_the_checkpoint_before_it_stays(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("takes the right to mount a file system")
    try:
        lines, _ = _fail(tmp_path, KNOWN, RESTORE)
        assert len(lines) == 3 and all("No space left on device" in line for line in lines)
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
    faulty_storage.faults = Faults(cut=0.5, of="^POST .*ifGenerationMatch")
    save_steps(bucket_path, range(1, 6)).close()
    assert faulty_storage.num_faults > faults + 4
