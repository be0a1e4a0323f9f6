"""What is damaged is found, and said to be lost: whatever happens to the folder."""

import gc
import logging
import re
import shutil

import pytest
from tqdm import tqdm

from switch_jax.checkpointing import Checkpoints, load_parameters
from switch_jax.errors import TransientError, UserError
from switch_jax.run_folder import RunFolder
from tests.checkpointing.small_state import ABSTRACT, assert_is, notes_of, save_steps, state_of


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two")
    save_steps(folder, [1, 2]).close()
    return folder


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
    aside = list((folder / "damaged").iterdir()) if (folder / "damaged").exists() else []
    if restored.step == 2:
        assert printed == "" and not aside
    else:
        assert restored.step == 1 and checkpoints.steps() == [1]
        assert [f.name.split("_")[0] for f in aside] == ["2"]
        assert printed.startswith("the checkpoint of step 2 is damaged (")
        said = printed.removesuffix("\n").removesuffix(", and the one before it is used")
        assert said.endswith(f": it was moved to {aside[0]}")
        # It can go on from here.
        checkpoints.save(2, state_of(2), notes_of(2), None)
        checkpoints.wait()
        assert_is(checkpoints.restore(ABSTRACT()), 2)
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
def test_no_damage_to_any_file_gives_wrong_values(two, tmp_path, capsys, caplog, damage):
    newest = two / "checkpoints" / "2"
    files = sorted(p.relative_to(newest) for p in newest.rglob("*") if p.is_file())
    assert len(files) >= 8
    step_of = {}
    for number, file in enumerate(files):
        folder = tmp_path / str(number)
        shutil.copytree(two, folder)
        _damage(folder / "checkpoints" / "2" / file, DAMAGES[damage])
        step_of[_kind(file)] = _check_damaged(folder, capsys, caplog)
    # Those that nothing can be read without: else the case would have damaged nothing.
    for needed in ("_CHECKPOINT_METADATA", "state/_METADATA", "state/ocdbt.process_0/d/*"):
        assert step_of[needed] == 1, step_of


@pytest.mark.parametrize("file", ["state/_METADATA", "state/_sharding"])
def test_a_file_that_is_cut_off_is_named(two, tmp_path, capsys, file):
    folder = tmp_path / "run"
    shutil.copytree(two, folder)
    _damage(folder / "checkpoints" / "2" / file, DAMAGES["half"])
    with pytest.raises(UserError, match=rf"checkpoints/2 cannot be read \({file} is not JSON\)"):
        load_parameters(folder, {})
    Checkpoints(RunFolder(folder), 3).restore(ABSTRACT())
    assert f"the checkpoint of step 2 is damaged ({file} is not JSON)" in capsys.readouterr().out


def test_a_flipped_bit_in_the_notes_is_found(two, tmp_path, capsys, caplog):
    """Digits turn into digits, and names into names: all of it still is JSON."""
    content = (two / "checkpoints" / "2" / "_CHECKPOINT_METADATA").read_bytes()
    for number, text in enumerate((b"1002", b"17]", b"custom_metadata", b"metrics", b"nsecs")):
        folder = tmp_path / str(number)
        shutil.copytree(two, folder)
        path = folder / "checkpoints" / "2" / "_CHECKPOINT_METADATA"
        path.write_bytes(_flipped(content, content.index(text) + 1))
        assert _check_damaged(folder, capsys, caplog) == 1, text


@pytest.mark.parametrize("damage", ["half", "flipped bit", "empty", "list", "folder"])
def test_damaged_amended_notes_cost_no_checkpoint_and_are_not_taken_for_others(
    two, tmp_path, capsys, damage
):
    folder = tmp_path / "run"
    shutil.copytree(two, folder)
    checkpoints = Checkpoints(RunFolder(folder), 3)
    checkpoints.amend(2, {"batches": 99999999999999})
    checkpoints.close()
    path = folder / "amended" / "2.json"
    if damage == "folder":
        path.unlink()
        path.mkdir()
    else:
        _damage(path, {**DAMAGES, "list": lambda content: b"[1, 2]"}[damage])
    checkpoints = Checkpoints(RunFolder(folder), 3)
    assert_is(checkpoints.restore(ABSTRACT()), 2)  # with the notes that were saved
    (printed,) = capsys.readouterr().out.splitlines()
    assert printed.startswith(f"{path} is damaged (")
    assert "the checkpoint of step 2 is used with the notes saved in it" in printed
    assert checkpoints.steps() == [1, 2] and not (folder / "damaged").exists()


def test_a_damaged_one_that_is_not_the_newest_is_moved_and_no_other_named(two, tmp_path, capsys):
    folder = tmp_path / "run"
    shutil.copytree(two, folder)
    _refuse(folder / "checkpoints" / "1")
    with tqdm(total=2):
        checkpoints = Checkpoints(RunFolder(folder), 3)
        assert_is(checkpoints.restore(ABSTRACT()), 2)
    (place,) = (folder / "damaged").iterdir()
    printed, bars = capsys.readouterr()
    (said,) = printed.splitlines()
    assert re.search(r"\r +\r", bars), "the bar is wiped away for the line"
    assert said.startswith("the checkpoint of step 1 is damaged (")
    assert said.endswith(f"): it was moved to {place}")
    checkpoints.close()


@pytest.mark.parametrize("name", ["4.orbax-checkpoint-tmp", "4_copy"])
def test_a_folder_that_is_no_step_is_no_damaged_checkpoint(tmp_path, capsys, name):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    _refuse(tmp_path / "checkpoints" / name)
    checkpoints = Checkpoints(RunFolder(tmp_path), 3)
    assert checkpoints.restore(ABSTRACT()) is None
    assert capsys.readouterr().out == "" and not (tmp_path / "damaged").exists()
    checkpoints.close()


def _refuse(checkpoint):
    """Has Orbax refuse the whole folder for this one."""
    (checkpoint / "_CHECKPOINT_METADATA").write_text("[]")


@pytest.mark.parametrize("file", ["state/_METADATA", "_CHECKPOINT_METADATA"])
def test_with_all_damaged_there_is_no_start_from_scratch(two, tmp_path, file):
    folder = tmp_path / "run"
    shutil.copytree(two, folder)
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
    assert sorted(f.name[0] for f in (folder / "damaged").iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    "file", ["_CHECKPOINT_METADATA", "state/_METADATA", "state/array_metadatas/process_0"]
)
def test_a_fault_of_the_storage_is_no_damage(two, tmp_path, file):
    folder = tmp_path / "run"
    shutil.copytree(two, folder)
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
