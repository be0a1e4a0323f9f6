"""What is damaged is found, and said to be lost: whatever happens to the folder."""

import errno
import gc
import itertools
import logging
import os
import re
from unittest import mock

import jax.numpy as jnp
import pytest
import tensorstore as ts
from orbax.checkpoint import v1 as ocp
from tqdm import tqdm

from switch_jax.checkpointing import Checkpoints, load_parameters
from switch_jax.checkpointing.integrity import describe_damage
from switch_jax.run_folder import RunFolder
from switch_jax.storage import RETRIES, in_bucket, list_names
from switch_jax.utils.errors import TransientError, UserError
from tests.checkpointing.small_state import ABSTRACT, assert_is, notes_of, state_of
from tests.storage.copies import SLOWLY_IN_A_BUCKET, copy_files
from tests.storage.slow_proxy import Faults


def _kind(path) -> str:
    """A file's path, with the names made up by the storage left out."""
    return "/".join("*" if len(part) == 32 else part for part in path.parts)


DAMAGES = {
    "half": lambda content: content[: len(content) // 2],
    "flipped bit": lambda content: _flipped(content, len(content) // 2),
    "empty": lambda content: b"",
    "absent": lambda content: None,
}


def _flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]


def _damage(path, damage) -> None:
    content = damage(path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)


def _check_damaged(folder, capsys, caplog) -> int:
    """Restores; the step, whose values are right, and of which it was said if it is not 2."""
    checkpoints = Checkpoints(RunFolder(folder), 3)
    restored = checkpoints.restore(ABSTRACT())
    assert_is(restored, restored.step)
    gc.collect()  # an exception that nobody has asked for would be printed now
    printed, traces = capsys.readouterr()
    logged = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert (traces, logged) == ("", []), "one line is enough"
    aside = list_names(folder / "damaged")
    if restored.step == 2:
        assert printed == "" and not aside
    else:
        assert restored.step == 1 and checkpoints.steps() == [1]
        assert [name.split("_")[0] for name in aside] == ["2"]
        assert printed.startswith("the checkpoint of step 2 is damaged (")
        said = printed.removesuffix("\n").removesuffix(", and the one before it is used")
        assert said.endswith(f": it was moved to {folder / 'damaged' / aside[0]}")
    checkpoints.close()
    return restored.step


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("half", marks=pytest.mark.slow),
        "flipped bit",
        pytest.param("empty", marks=pytest.mark.slow),
        pytest.param("absent", marks=pytest.mark.slow),
    ],
)
@SLOWLY_IN_A_BUCKET
def test_no_damage_to_any_file_gives_wrong_values(two, storage, capsys, caplog, damage):
    newest = two / "checkpoints" / "2"
    files = sorted(p.relative_to(newest) for p in newest.rglob("*") if p.is_file())
    assert len(files) >= 8
    if in_bucket(storage) and damage == "absent":
        files = [file for file in files if file.name != "commit_success.txt"]  # not complete
    step_of = {}
    for number, file in enumerate(files):
        folder = copy_files(two, storage / str(number))
        _damage(folder / "checkpoints" / "2" / file, DAMAGES[damage])
        step_of[_kind(file)] = _check_damaged(folder, capsys, caplog)
    # Those that nothing can be read without: else the case would have damaged nothing.
    for needed in ("_CHECKPOINT_METADATA", "state/_METADATA", "state/ocdbt.process_0/d/*"):
        assert step_of[needed] == 1, step_of


@pytest.mark.parametrize(
    ("storage", "file"),
    [("disk", "state/_sharding"), ("bucket", "state/_METADATA")],
    indirect=["storage"],
)
def test_a_file_that_is_cut_off_is_named_and_the_run_goes_on(two, storage, capsys, file):
    folder = copy_files(two, storage / "run")
    _damage(folder / "checkpoints" / "2" / file, DAMAGES["half"])
    with pytest.raises(UserError, match=rf"checkpoints/2 cannot be read \({file} is not JSON\)"):
        load_parameters(folder, {})
    checkpoints = Checkpoints(RunFolder(folder), 3)
    assert_is(checkpoints.restore(ABSTRACT()), 1)
    assert f"the checkpoint of step 2 is damaged ({file} is not JSON)" in capsys.readouterr().out
    checkpoints.save(2, state_of(2), notes_of(2), None)
    checkpoints.wait()
    assert_is(checkpoints.restore(ABSTRACT()), 2)


@SLOWLY_IN_A_BUCKET
def test_a_flipped_bit_in_the_notes_is_found(two, storage, capsys, caplog):
    """Digits turn into digits, and names into names: all of it still is JSON."""
    content = (two / "checkpoints" / "2" / "_CHECKPOINT_METADATA").read_bytes()
    for number, text in enumerate((b"1002", b"custom_metadata", b"metrics", b"nsecs")):
        folder = copy_files(two, storage / str(number))
        path = folder / "checkpoints" / "2" / "_CHECKPOINT_METADATA"
        path.write_bytes(_flipped(content, content.index(text) + 1))
        assert _check_damaged(folder, capsys, caplog) == 1, text


@pytest.mark.parametrize("damage", ["flipped bit", "folder"])
@SLOWLY_IN_A_BUCKET
def test_damaged_amended_notes_cost_no_checkpoint_and_are_not_taken_for_others(
    two, storage, capsys, damage
):
    if in_bucket(storage) and damage == "folder":
        pytest.skip("an object takes no other's place there")
    folder = copy_files(two, storage / "run")
    checkpoints = Checkpoints(RunFolder(folder), 3)
    checkpoints.amend(2, {"batches": 99999999999999})
    checkpoints.close()
    path = folder / "amended" / "2.json"
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        _damage(path, DAMAGES[damage])
    checkpoints = Checkpoints(RunFolder(folder), 3)
    assert_is(checkpoints.restore(ABSTRACT()), 2)  # with the notes that were saved
    (printed,) = capsys.readouterr().out.splitlines()
    assert printed.startswith(f"{path} is damaged (")
    assert "the checkpoint of step 2 is used with the notes saved in it" in printed
    assert checkpoints.steps() == [1, 2] and not (folder / "damaged").exists()


@SLOWLY_IN_A_BUCKET
def test_a_damaged_one_that_is_not_the_newest_is_moved_and_no_other_named(two, storage, capsys):
    folder = copy_files(two, storage / "run")
    _refuse(folder / "checkpoints" / "1")
    with tqdm(total=2):
        checkpoints = Checkpoints(RunFolder(folder), 3)
        assert_is(checkpoints.restore(ABSTRACT()), 2)
    (place,) = list_names(folder / "damaged")
    printed, bars = capsys.readouterr()
    (said,) = printed.splitlines()
    assert re.search(r"\r +\r", bars), "the bar is wiped away for the line"
    assert said.startswith("the checkpoint of step 1 is damaged (")
    assert said.endswith(f"): it was moved to {folder / 'damaged' / place}")
    checkpoints.close()


@pytest.mark.parametrize("name", ["4.orbax-checkpoint-tmp", "4_copy"])
@SLOWLY_IN_A_BUCKET
def test_a_folder_that_is_no_step_is_no_damaged_checkpoint(storage, capsys, name):
    (storage / "checkpoints" / name).mkdir(parents=True)
    _refuse(storage / "checkpoints" / name)
    checkpoints = Checkpoints(RunFolder(storage), 3)
    assert checkpoints.restore(ABSTRACT()) is None
    assert capsys.readouterr().out == "" and not (storage / "damaged").exists()
    checkpoints.close()


def _refuse(checkpoint):
    """Has Orbax refuse the whole folder for this one."""
    (checkpoint / "_CHECKPOINT_METADATA").write_text("[]")


@pytest.mark.parametrize("file", ["state/_METADATA", "_CHECKPOINT_METADATA"])
@SLOWLY_IN_A_BUCKET
def test_with_all_damaged_there_is_no_start_from_scratch(two, storage, file):
    folder = copy_files(two, storage / "run")
    for step in "12":
        # Of the second file's, one that Orbax refuses to open the folder for.
        _damage(
            folder / "checkpoints" / step / file,
            lambda c: (
                c.replace(b"metrics", b"m", 1)[:-9]
                if file == "state/_METADATA"
                else c.replace(b"metrics", b"letrics", 1)
            ),
        )
    for _ in range(2):  # nor at the next attempt
        with pytest.raises(UserError, match="no checkpoint is left in .*all were damaged, and are"):
            Checkpoints(RunFolder(folder), 3).restore(ABSTRACT())
    assert [name[0] for name in list_names(folder / "damaged")] == ["1", "2"]


@pytest.mark.parametrize(
    "file",
    ["state/_METADATA", "state/array_metadatas/process_0"],
)
def test_a_fault_of_the_storage_is_no_damage(two, tmp_path, file):
    folder = copy_files(two, tmp_path / "run")
    path = folder / "checkpoints" / "2" / file
    path.rename(tmp_path / "kept")
    path.symlink_to("/proc/self/mem")  # Input/output error
    checkpoints = Checkpoints(RunFolder(folder), 3)
    with pytest.raises(TransientError, match="cannot be read: .*Input/output error.*; this may p"):
        checkpoints.restore(ABSTRACT())
    if "array_metadatas" not in file:
        with pytest.raises(TransientError, match=f"cannot be read: .*{path}'; this may pass"):
            load_parameters(folder, {})
    assert not (folder / "damaged").exists()
    (tmp_path / "kept").rename(path)
    assert_is(checkpoints.restore(ABSTRACT()), 2)


# As TensorStore 0.1.86 reports files that were cut, emptied, changed or removed.
DAMAGED = [
    ValueError('OUT_OF_RANGE: Error opening "zarr3" driver: Requested byte range [0, 9) is not'),
    ValueError('NOT_FOUND: Error opening "zarr3" driver: Error reading "step/zarr.json"'),
    ValueError("DATA_LOSS: Error decoding shard index: Digest mismatch, stored digest is 1"),
    ValueError('Error opening "zarr3" driver: Error decoding manifest: Zstd compression level 5'),
    ValueError(
        "FAILED_PRECONDITION: Error reading shard entry {0}: ZSTD_decompressStream() failed"
    ),
    ValueError("state/_METADATA is not JSON"),
    KeyError("write_shape"),
    AttributeError("'dict' object has no attribute 'param_name'"),
    NotImplementedError("Conversion for NbmedSharding has not been implemented."),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "x"),
    FileNotFoundError("Metadata file (named _METADATA) does not exist"),
    IsADirectoryError(errno.EISDIR, "Is a directory", "x"),
]
_CODES = "EACCES EPERM EMFILE ENFILE ENOMEM EIO ESTALE ELOOP EAGAIN ENODEV ETIMEDOUT EPROTO"
NOT_DAMAGED = [
    *(OSError(getattr(errno, code), code, "x") for code in _CODES.split()),
    OSError("no answer"),
    TimeoutError("no answer"),
    MemoryError(),
    RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes"),
    ValueError("RESOURCE_EXHAUSTED: Failed to open: 'x': Too many open files [os_error_code='24']"),
    ValueError("PERMISSION_DENIED: Failed to open: 'x': Permission denied [os_error_code='13']"),
    ValueError("PERMISSION_DENIED: Error reading gs://x/y: HTTP response code: 403"),
    ValueError("UNAUTHENTICATED: Error reading gs://x/y: HTTP response code: 401"),
    ValueError('Error opening "zarr3" driver: Error reading gs://x/y: HTTP response code: 400'),
    ValueError("UNKNOWN: Failed to open: 'x': Too many levels of links [os_error_code='40']"),
    ValueError("NOT_FOUND: Failed to open: 'x': No such device [os_error_code='19']"),
    RuntimeError("a fault of a program"),
]


@pytest.mark.parametrize("error", DAMAGED, ids=repr)
def test_wrong_or_missing_content_is_damage(error):
    assert str(error.args[-1])[:40] in describe_damage(
        _raised(Exception("while reading an array"), error)
    )


@pytest.mark.parametrize("error", NOT_DAMAGED, ids=repr)
def test_all_else_is_no_damage(error):
    """Also where a function has words of its own for it."""
    for found in (error, _raised(ValueError("it cannot be read"), error)):
        with pytest.raises(TransientError, match="^a checkpoint cannot be read: .*: start again$"):
            describe_damage(found)


def test_a_refusal_counts_after_a_file_that_is_not_there():
    refusal = _raised(PermissionError(errno.EACCES, "Forbidden", "x"), FileNotFoundError("y"))
    with pytest.raises(TransientError, match="cannot be read: .*Forbidden"):
        describe_damage(_raised(ValueError("it cannot be read"), refusal))


def _raised(error, cause):
    error.__cause__ = cause
    return error


def test_a_mistake_is_said_as_it_is():
    with pytest.raises(UserError, match="^pip install x$") as raised:
        describe_damage(UserError("pip install x"))
    assert type(raised.value) is UserError


@pytest.mark.parametrize("file", ["_CHECKPOINT_METADATA", "state/_METADATA", "state/d"])
def test_what_may_not_be_read_is_no_damage(two, tmp_path, file):
    path = copy_files(two, tmp_path / "run") / "checkpoints" / "2" / file
    mode = path.stat().st_mode
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("the superuser reads every file")
    with pytest.raises(TransientError, match=r"cannot be read: .*[Pp]ermission denied"):
        Checkpoints(RunFolder(tmp_path / "run"), 3).restore(ABSTRACT())
    path.chmod(mode)
    assert_is(Checkpoints(RunFolder(tmp_path / "run"), 3).restore(ABSTRACT()), 2)
    assert not (tmp_path / "run" / "damaged").exists()


def test_a_link_to_itself_is_no_damage(two, tmp_path):
    """Nor where Orbax has swallowed the error: of what describes the arrays."""
    folder = copy_files(two, tmp_path / "run")
    (path,) = (folder / "checkpoints" / "2" / "state" / "d").iterdir()
    path.rename(tmp_path / "kept")
    path.symlink_to(path.name)
    with pytest.raises(TransientError, match=r"cannot be read: .*Too many levels of symbolic"):
        Checkpoints(RunFolder(folder), 3).restore(ABSTRACT())
    (tmp_path / "kept").rename(path)
    assert_is(Checkpoints(RunFolder(folder), 3).restore(ABSTRACT()), 2)
    assert not (folder / "damaged").exists()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_in_a_bucket_is_no_damage(two, bucket_path, faulty_storage, status):
    """Of any file, of an array, of the question whether there is a folder: once, or for good."""
    folder = copy_files(two, bucket_path)
    of_2 = f"{bucket_path.name}(%2F|/)checkpoints(%2F|/)2"
    for part in (
        "%2F_CHECKPOINT_METADATA.alt=media",
        "%2Fstate%2F_METADATA.alt=media",
        "%2Fstate%2Fmanifest.ocdbt.alt=media",
        "%2Fstate%2Fd%2F",
        "%2Fstate%2Focdbt.process_0%2Fd%2F",
        "/state/&maxResults=1$",
    ):
        for coming in ([status], itertools.repeat(status)):
            checkpoints = Checkpoints(RunFolder(folder), 3)
            faulty_storage.faults = Faults(coming, of=of_2 + part)
            with pytest.raises(TransientError, match="cannot be read: "):
                checkpoints.restore(ABSTRACT())
            faulty_storage.faults = Faults()
    assert list_names(folder / "damaged") == []
    assert_is(checkpoints.restore(ABSTRACT()), 2)


@pytest.mark.parametrize("status", [401, 403])
def test_a_folder_that_a_bucket_refuses_to_open_may_be_opened_later(
    two, bucket_path, faulty_storage, status
):
    """Of the folder itself, which Orbax alone asks for; nothing was to be written."""
    folder = copy_files(two, bucket_path)
    faulty_storage.faults = Faults(itertools.repeat(status), of=f"{folder.name}%2Fcheckpoints$")
    refusal = f"cannot be read: .* {status} .*'{folder}/checkpoints'; this may pass: start again$"
    with pytest.raises(TransientError, match=refusal):
        Checkpoints(RunFolder(folder), 3)
    faulty_storage.faults = Faults()
    assert Checkpoints(RunFolder(folder), 3).steps() == [1, 2]


@pytest.mark.parametrize("of", ["Checkpointer", "Checkpointer.reload"])
def test_what_orbax_cannot_read_may_be_read_later_unless_it_is_damaged(
    two, tmp_path, monkeypatch, of
):
    for error, kind, message in (
        (OSError(errno.EMFILE, "words", "x"), TransientError, "read: .*words: 'x'; this may pass"),
        (OSError(errno.ENOMEM, "words", "x"), TransientError, "read: .*words: 'x'; this may pass"),
        (ValueError("no number"), UserError, "checkpoints cannot be read: no number$"),
    ):
        folder = copy_files(two, tmp_path / str(error))
        (folder / "checkpoints" / "2" / "state" / "_METADATA").write_text("{")
        with monkeypatch.context() as failing:
            failing.setattr(f"{ocp.training.__name__}.{of}", mock.Mock(side_effect=error))
            with pytest.raises(UserError, match=message) as raised:
                Checkpoints(RunFolder(folder), 3).restore(ABSTRACT())
        assert type(raised.value) is kind


def test_a_file_in_place_of_the_checkpoints_is_a_mistake(tmp_path):
    (tmp_path / "checkpoints").touch()
    with pytest.raises(UserError, match="checkpoints cannot be written: File exists$") as raised:
        Checkpoints(RunFolder(tmp_path), 3)
    assert raised.value.exit_code == 2


def test_a_metric_that_cannot_be_read_costs_no_best_checkpoint(tmp_path):
    """Without its metric the best one would be removed after the next save."""
    for step, metric in ((1, 0.9), (2, 0.1), (3, 0.2)):
        checkpoints = Checkpoints(RunFolder(tmp_path), keep=1, keep_best=1)
        checkpoints.save(step, {"x": jnp.arange(3.0)}, {}, metric)
        checkpoints.close()
    path = tmp_path / "checkpoints" / "1" / "_CHECKPOINT_METADATA"
    path.rename(tmp_path / "kept")
    path.symlink_to(path.name)
    with pytest.raises(TransientError, match="cannot be read: .*Too many levels of symbolic"):
        Checkpoints(RunFolder(tmp_path), keep=1, keep_best=1)
    (tmp_path / "kept").rename(path)
    assert Checkpoints(RunFolder(tmp_path), keep=1, keep_best=1).steps() == [1, 3]


def test_a_bucket_that_does_not_answer_is_no_damage(two, bucket_path, faulty_storage, monkeypatch):
    checkpoints = Checkpoints(RunFolder(copy_files(two, bucket_path)), 3)
    monkeypatch.setattr(type(RETRIES), "waiting_times", lambda self: iter([]))
    faulty_storage.faults = Faults(itertools.repeat(503))
    with pytest.raises(TransientError, match="cannot be read: .*503.*; this may pass"):
        checkpoints.restore(ABSTRACT())
    faulty_storage.faults = Faults()
    assert_is(checkpoints.restore(ABSTRACT()), 2)
    assert list_names(bucket_path / "damaged") == []


def test_a_bucket_that_tensorstore_gives_up_is_no_damage(bucket_path, faulty_storage):
    retries = {"max_retries": 1, "initial_delay": "1ms", "max_delay": "1ms"}
    spec = {"driver": "gcs", "bucket": "bucket", "context": {"gcs_request_retries": retries}}
    store = ts.KvStore.open(spec).result()
    faulty_storage.faults = Faults(itertools.repeat(503))
    with pytest.raises(ValueError) as given_up:
        store.read(f"{bucket_path.name}/x").result()
    with pytest.raises(TransientError, match="cannot be read: .*503.*; this may pass"):
        describe_damage(given_up.value)
