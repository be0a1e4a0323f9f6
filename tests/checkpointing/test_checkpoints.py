"""What is saved comes back, or is said to be lost: whatever happens to the folder."""

import functools
import gc
import logging
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from switch_jax.checkpointing import Checkpoints, load_parameters
from switch_jax.config import MeshConfig
from switch_jax.errors import TransientError, UserError
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.run_folder import RunFolder

# 2 MB, so that there are files with nothing but data; the rest lies within descriptions.
PLACES = {
    "step": PartitionSpec(),
    "large": PartitionSpec("expert"),
    "nested": {"matrix": PartitionSpec("data", "model"), "vector": PartitionSpec()},
}


def _values(seed: int) -> dict:
    rng = np.random.default_rng(seed)
    return {
        "step": np.int32(seed),
        "large": rng.normal(size=(1024, 512)).astype(np.float32),
        "nested": {
            "matrix": rng.normal(size=(8, 4)).astype(np.float32),
            "vector": rng.normal(size=5).astype(np.float32),
        },
    }


def _notes(seed: int) -> dict:
    return {"position": {"batches": 1000 + seed, "streams": {"3": [seed, 17]}}, "best": None}


def _on(mesh_shape, values):
    mesh = make_mesh(MeshConfig(*mesh_shape))
    return jax.tree.map(lambda v, p: jax.device_put(v, NamedSharding(mesh, p)), values, PLACES)


def _state(seed: int, mesh_shape=(2, 2, 2)):
    return _on(mesh_shape, _values(seed))


def _abstract(state):
    def one(x):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)

    return jax.tree.map(one, state)


ABSTRACT = functools.cache(lambda: _abstract(_state(0)))


def _assert_is(restored, step: int, seed: int | None = None, notes=None) -> None:
    seed = step if seed is None else seed
    assert restored.step == step
    assert restored.notes == (_notes(seed) if notes is None else notes)
    for a, b in zip(jax.tree.leaves(restored.state), jax.tree.leaves(_values(seed)), strict=True):
        np.testing.assert_array_equal(a, b)


def _saved(folder, steps, keep=3):
    checkpoints = Checkpoints(RunFolder(folder), keep)
    for step in steps:
        checkpoints.save(step, _state(step), _notes(step), None)
    checkpoints.wait()
    return checkpoints


def test_state_step_and_notes_come_back(tmp_path):
    assert Checkpoints(RunFolder(tmp_path), 3).restore(ABSTRACT()) is None
    checkpoints = _saved(tmp_path, [4, 7])
    _assert_is(checkpoints.restore(ABSTRACT()), 7)
    checkpoints.close()
    again = Checkpoints(RunFolder(tmp_path), 3)
    assert again.steps() == [4, 7]
    _assert_is(again.restore(ABSTRACT()), 7)


@pytest.mark.parametrize("shape", [(1, 4, 1), (4, 1, 2), (1, 1, 1)])
def test_a_checkpoint_comes_back_on_another_mesh(tmp_path, shape):
    _saved(tmp_path, [1]).close()
    wanted = _state(0, shape)
    restored = Checkpoints(RunFolder(tmp_path), 3).restore(_abstract(wanted))
    _assert_is(restored, 1)
    for a, b in zip(jax.tree.leaves(restored.state), jax.tree.leaves(wanted), strict=True):
        assert a.sharding == b.sharding


def test_the_newest_stay_and_besides_the_best_also_after_opening_again(tmp_path):
    small = {"x": jnp.arange(3.0)}
    values = [5.0, None, 1.0, 9.0, 2.0, float("nan"), 3.0, 0.0]
    folders = tmp_path / "checkpoints"
    checkpoints = Checkpoints(RunFolder(tmp_path), keep=2, keep_best=2)
    for step, value in enumerate(values, 1):
        if step == 6:  # the values must be remembered
            checkpoints.close()
            checkpoints = Checkpoints(RunFolder(tmp_path), keep=2, keep_best=2)
        checkpoints.save(step, small, {}, value)
        checkpoints.wait()
        known = [s for s in range(1, step + 1) if values[s - 1] is not None and values[s - 1] > -1]
        best = sorted(known, key=lambda s: values[s - 1])[-2:]
        expected = sorted({*range(max(1, step - 1), step + 1), *best})
        assert sorted(int(f.name) for f in folders.iterdir()) == expected
    assert checkpoints.steps() == [1, 4, 7, 8]


def test_without_best_only_the_newest_stay(tmp_path):
    checkpoints = Checkpoints(RunFolder(tmp_path), keep=2)
    for step in range(1, 5):
        checkpoints.save(step, {"x": jnp.arange(3.0)}, {}, float(-step))
    checkpoints.wait()
    assert checkpoints.steps() == [3, 4]


def test_later_checkpoints_are_discarded_and_can_be_saved_again(tmp_path):
    checkpoints = _saved(tmp_path, [2, 4, 6])
    _assert_is(checkpoints.restore(ABSTRACT(), last=3), 2)
    assert checkpoints.steps() == [2]
    discarded = sorted(f.name.split("_")[0] for f in (tmp_path / "discarded").iterdir())
    assert discarded == ["4", "6"]
    checkpoints.save(4, _state(40), _notes(40), None)
    checkpoints.wait()
    _assert_is(checkpoints.restore(ABSTRACT()), 4, seed=40)
    # All are later: the oldest is the nearest.
    _assert_is(checkpoints.restore(ABSTRACT(), last=1), 2)
    assert checkpoints.steps() == [2]


def _full(folder):
    """Names of the checkpoints in a folder that are not empty, without the time."""
    return sorted(path.name.split("_")[0] for path in folder.iterdir() if any(path.iterdir()))


@pytest.mark.parametrize(("keep", "expected"), [(0, []), (1, ["4"]), (3, ["2", "3", "4"])])
def test_of_those_set_aside_the_newest_stay(tmp_path, keep, expected):
    state = {"x": jnp.arange(3.0)}
    checkpoints = Checkpoints(RunFolder(tmp_path), 9, keep_set_aside=keep)
    for step in range(1, 8):
        checkpoints.save(step, state, {}, None)
    for last in (4, 1):  # steps 2 to 4 are set aside after 5 to 7
        checkpoints.restore(_abstract(state), last=last)
    own = tmp_path / "discarded" / "my_best"
    shutil.copytree(tmp_path / "checkpoints" / "1", own)
    assert _full(tmp_path / "discarded") == ["2", "3", "4", "5", "6", "7", "my"]  # until a save
    checkpoints.save(2, state, {}, None)
    assert _full(tmp_path / "discarded") == [*expected, "my"], "what somebody put there stays"
    assert len(list((tmp_path / "discarded").iterdir())) == 7, "the names stay"
    checkpoints.close()


def test_amended_notes_come_back_until_the_step_is_saved_again(tmp_path):
    checkpoints = _saved(tmp_path, [1, 2])
    amended = {"position": {"batches": 99}}
    checkpoints.amend(2, amended)
    checkpoints.amend(5, {"no": "such step"})
    _assert_is(checkpoints.restore(ABSTRACT()), 2, notes=amended)
    checkpoints.close()
    again = Checkpoints(RunFolder(tmp_path), 3)
    _assert_is(again.restore(ABSTRACT()), 2, notes=amended)
    _assert_is(again.restore(ABSTRACT(), last=1), 1)
    again.save(2, _state(2), _notes(2), None)
    again.wait()
    _assert_is(again.restore(ABSTRACT()), 2)


@pytest.mark.parametrize("place", ["split", "replicated", "one device"])
def test_what_is_saved_is_not_what_a_later_step_writes_over_it(tmp_path, place):
    mesh = make_mesh(MeshConfig(2, 4, 1))
    sharding = {
        "split": NamedSharding(mesh, PartitionSpec(("data", "expert"))),
        "replicated": NamedSharding(mesh, PartitionSpec()),
        "one device": jax.sharding.SingleDeviceSharding(jax.devices()[0]),
    }[place]

    def fresh():
        # 8 MB, and as much of an odd size.
        shapes = [(2048, 1024), (2048, 1024) if place == "split" else (2097151,)]
        return {
            str(i): jax.device_put(np.full(s, i, np.float32), sharding)
            for i, s in enumerate(shapes)
        }

    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x * 3 + 7, s), donate_argnums=0)
    overwrite(fresh())  # compiled
    checkpoints = Checkpoints(RunFolder(tmp_path), 1)
    for step in (1, 2, 3):
        state = fresh()
        checkpoints.save(step, state, {}, None)
        for _ in range(4):
            state = overwrite(state)
        jax.block_until_ready(state)
        checkpoints.wait()
        restored = checkpoints.restore(_abstract(state)).state
        for i, array in enumerate(restored.values()):
            assert (np.asarray(array) == i).all()


def test_what_is_not_in_a_checkpoint_comes_fresh_where_that_is_allowed(tmp_path):
    checkpoints = _saved(tmp_path, [1])
    mesh = make_mesh(MeshConfig(2, 2, 2))
    whole = NamedSharding(mesh, PartitionSpec())
    new = {"matrix": np.float32(-1), "vector": np.ones(7, np.float32), "added": np.int32(5)}
    new = jax.device_put(new, whole)
    wanted = {**ABSTRACT(), "nested": _abstract(new) | {"matrix": ABSTRACT()["nested"]["matrix"]}}
    with pytest.raises(UserError, match="2 of 5 arrays differ"):
        checkpoints.restore(wanted)
    state = checkpoints.restore(wanted, fresh={"nested": lambda: new}).state
    expected = _values(1)
    expected["nested"] |= {"vector": np.ones(7), "added": 5}
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
    assert jax.tree.map(lambda x: x.sharding, state) == jax.tree.map(lambda x: x.sharding, wanted)
    with pytest.raises(UserError, match=r"large: \(1024, 512\)"):
        checkpoints.restore({**wanted, "large": new["added"]}, fresh={"nested": lambda: new})


def test_another_model_is_refused_by_name_and_its_checkpoint_stays(tmp_path):
    checkpoints = _saved(tmp_path, [1, 2])
    wanted = {**ABSTRACT(), "extra": jax.ShapeDtypeStruct((3,), jnp.float32)}
    wanted["large"] = jax.ShapeDtypeStruct((512, 512), jnp.float32)
    message = (
        r"step 2 in .*checkpoints is of another model: 2 of 5 arrays differ \(extra: absent in "
        r"the checkpoint, \(3,\) in the config; large: \(1024, 512\) .*, \(512, 512\) in the"
    )
    with pytest.raises(UserError, match=message):
        checkpoints.restore(wanted)
    assert checkpoints.steps() == [1, 2] and not (tmp_path / "damaged").exists()
    _assert_is(checkpoints.restore(ABSTRACT()), 2)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A folder with the checkpoints of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("two")
    _saved(folder, [1, 2]).close()
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
    _assert_is(restored, restored.step)
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
        checkpoints.save(2, _state(2), _notes(2), None)
        checkpoints.wait()
        _assert_is(checkpoints.restore(ABSTRACT()), 2)
    checkpoints.close()
    return restored.step


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("half", marks=pytest.mark.slow),
        "flipped bit",
        pytest.param("empty", marks=pytest.mark.slow),
        "absent",
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
    _assert_is(checkpoints.restore(ABSTRACT()), 2)  # with the notes that were saved
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
        _assert_is(checkpoints.restore(ABSTRACT()), 2)
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
    _assert_is(checkpoints.restore(ABSTRACT()), 2)
