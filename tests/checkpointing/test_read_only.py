"""Parameters alone come back from another run's folder, in which nothing changes."""

import jax
import numpy as np
import pytest

from switch_jax.checkpointing import find_checkpoint, load_parameters, lock_run
from switch_jax.run_folder import RunFolder
from switch_jax.utils.errors import UserError
from tests.checkpointing.small_state import ABSTRACT, abstract, state_of, values_of
from tests.storage.copies import copy_files


def _assert_is(parameters, step):
    found, expected = (jax.tree.leaves(p) for p in (parameters, values_of(step)["parameters"]))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float32
        assert np.asarray(a).tobytes() == b.tobytes()


def _load(path, step=None):
    return load_parameters(path, ABSTRACT()["parameters"], step)


def test_the_newest_is_taken_or_one_that_is_named(two):
    _assert_is(_load(two), 2)
    _assert_is(_load(str(two / "checkpoints" / "1")), 1)
    _assert_is(_load(two, step=1), 1)
    assert find_checkpoint(two) == two / "checkpoints" / "2"


def test_they_come_back_on_another_mesh(two):
    wanted = state_of(0, (1, 1, 1))["parameters"]
    parameters = load_parameters(two, abstract(wanted))
    _assert_is(parameters, 2)
    for a, b in zip(jax.tree.leaves(parameters), jax.tree.leaves(wanted), strict=True):
        assert a.sharding == b.sharding


def _content(folder):
    """All that is in it, with the times at which it was written."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def test_nothing_changes_in_the_folder_of_a_run_that_goes_on(two, tmp_path):
    folder = copy_files(two, tmp_path / "run")
    (folder / "checkpoints" / "11.orbax-checkpoint-tmp").mkdir()  # a save under way
    lock = lock_run(RunFolder(folder))
    before = _content(folder)
    _assert_is(_load(folder), 2)
    assert _content(folder) == before
    lock.close()


@pytest.mark.parametrize("file", ["_METADATA", "ocdbt.process_0/d/*"])
def test_a_damaged_one_is_refused_and_left_as_it_is(two, tmp_path, file):
    folder = copy_files(two, tmp_path / "run")
    for path in (folder / "checkpoints" / "2" / "state").glob(file):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = _content(folder)
    with pytest.raises(UserError, match=r"checkpoints/2 cannot be read \(.+\): it is damaged, or"):
        _load(folder)
    assert _content(folder) == before
    _assert_is(_load(folder, step=1), 1)


def test_what_is_not_there_is_named(two, tmp_path):
    with pytest.raises(
        UserError, match=r"no folder .*/absent to take a model from: give.*`hf down"
    ):
        find_checkpoint(tmp_path / "absent")
    with pytest.raises(UserError, match=r"has no checkpoint: give the MODEL_DIR of a run .*STEP"):
        find_checkpoint(tmp_path)
    with pytest.raises(UserError, match=r"has no checkpoint of step 4: there are 1, 2"):
        find_checkpoint(two, step=4)
