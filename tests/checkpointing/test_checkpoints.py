"""What is saved comes back, on any mesh, and the right ones stay."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from switch_jax.checkpointing import Checkpoints, best_step
from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.run_folder import RunFolder
from switch_jax.storage import list_names
from switch_jax.utils.errors import UserError
from tests.checkpointing.small_state import (
    ABSTRACT,
    abstract,
    assert_is,
    notes_of,
    save_steps,
    state_of,
)
from tests.leaks import left_open


def _set_aside(folder):
    """Names of the checkpoints in a folder, without the time."""
    return sorted(name.split("_")[0] for name in list_names(folder))


def test_state_step_and_notes_come_back_on_another_mesh(tmp_path):
    assert Checkpoints(RunFolder(tmp_path), 3).restore(ABSTRACT()) is None
    checkpoints = save_steps(tmp_path, [4, 7])
    assert_is(checkpoints.restore(ABSTRACT()), 7)
    checkpoints.close()
    again = Checkpoints(RunFolder(tmp_path), 3)
    assert again.steps() == [4, 7]
    wanted = state_of(0, (4, 1, 2))
    restored = again.restore(abstract(wanted))
    assert_is(restored, 7)
    for a, b in zip(jax.tree.leaves(restored.state), jax.tree.leaves(wanted), strict=True):
        assert a.sharding == b.sharding


def test_the_newest_stay_and_besides_the_best_also_after_opening_again(storage):
    small = {"x": jnp.arange(3.0)}
    values = [5.0, None, 1.0, 9.0, 2.0, float("nan"), 3.0, 0.0]
    folders = storage / "checkpoints"
    checkpoints = Checkpoints(RunFolder(storage), keep=2, keep_best=2)
    for step, value in enumerate(values, 1):
        if step == 6:  # the values must be remembered
            checkpoints.close()
            checkpoints = Checkpoints(RunFolder(storage), keep=2, keep_best=2)
        checkpoints.save(step, small, {}, value)
        checkpoints.wait()
        known = [s for s in range(1, step + 1) if values[s - 1] is not None and values[s - 1] > -1]
        best = sorted(known, key=lambda s: values[s - 1])[-2:]
        expected = sorted({*range(max(1, step - 1), step + 1), *best})
        assert sorted(int(name) for name in list_names(folders)) == expected
    assert checkpoints.steps() == [1, 4, 7, 8]


def test_what_a_metric_is_of_is_remembered(tmp_path):
    for steps, of in (((1, 2, 3), {"metric": "accuracy"}), ((4, 5), {"metric": "loss"})):
        checkpoints = Checkpoints(RunFolder(tmp_path), keep=1, keep_best=1)
        for step in steps:
            checkpoints.save(step, {"x": jnp.arange(3.0)}, {}, -float(step), of)
        checkpoints.close()
        assert best_step(tmp_path) == steps[0]
        assert checkpoints.steps() == [steps[0], steps[-1]]


def test_later_checkpoints_are_discarded_and_can_be_saved_again(storage):
    checkpoints = save_steps(storage, [2, 4])
    assert_is(checkpoints.restore(ABSTRACT(), last=3), 2)
    assert checkpoints.steps() == [2]
    assert _set_aside(storage / "discarded") == ["4"]
    checkpoints.save(4, state_of(40), notes_of(40), None)
    checkpoints.wait()
    assert_is(checkpoints.restore(ABSTRACT()), 4, seed=40)
    # All are later: the oldest is the nearest.
    assert_is(checkpoints.restore(ABSTRACT(), last=1), 2)
    assert checkpoints.steps() == [2]


@pytest.mark.parametrize(
    ("storage", "keep", "stays"), [("disk", 0, ""), ("bucket", 1, "3")], indirect=["storage"]
)
def test_those_set_aside_but_the_newest_go_once_as_many_newer_ones_are_there(storage, keep, stays):
    state = {"x": jnp.arange(3.0)}
    checkpoints = Checkpoints(RunFolder(storage), 9)
    for step in range(1, 6):
        checkpoints.save(step, state, {}, None)
    checkpoints.close()
    checkpoints = Checkpoints(RunFolder(storage), keep=2, keep_set_aside=keep)
    for last in (3, 1):  # steps 2 and 3 are set aside after 4 and 5
        checkpoints.restore(abstract(state), last=last)
    (storage / "discarded" / "my_best").mkdir()
    (storage / "discarded" / "my_best" / "file").write_text("x")
    # Before the save of step 4 there are 2 and 3: two that are as good as the step 2 set aside.
    left = {2: "2345", 3: "2345", 4: "345", 5: "45", 6: "5", 7: ""}
    for step, expected in left.items():
        checkpoints.save(step, state, {}, None)
        ours = [name for name in _set_aside(storage / "discarded") if name != "my"]
        assert ours == sorted({*expected, *stays}), step
    assert (storage / "discarded" / "my_best" / "file").exists(), "what somebody put there stays"
    checkpoints.close()


def test_amended_notes_come_back_until_the_step_is_saved_again(tmp_path):
    checkpoints = save_steps(tmp_path, [1, 2])
    amended = {"position": {"batches": 99}}
    checkpoints.amend(2, amended)
    checkpoints.amend(5, {"no": "such step"})
    assert_is(checkpoints.restore(ABSTRACT()), 2, notes=amended)
    checkpoints.close()
    again = Checkpoints(RunFolder(tmp_path), 3)
    assert_is(again.restore(ABSTRACT()), 2, notes=amended)
    assert_is(again.restore(ABSTRACT(), last=1), 1)
    again.save(2, state_of(2), notes_of(2), None)
    again.wait()
    assert_is(again.restore(ABSTRACT()), 2)


@pytest.mark.parametrize("place", ["split", "replicated"])
def test_what_is_saved_is_not_what_a_later_step_writes_over_it(tmp_path, place):
    mesh = make_mesh(MeshConfig(2, 4, 1))
    sharding = {
        "split": NamedSharding(mesh, PartitionSpec(("data", "expert"))),
        "replicated": NamedSharding(mesh, PartitionSpec()),
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
        restored = checkpoints.restore(abstract(state)).state
        for i, array in enumerate(restored.values()):
            assert (np.asarray(array) == i).all()


def test_another_model_is_refused_by_name_and_its_checkpoint_stays(tmp_path):
    checkpoints = save_steps(tmp_path, [1, 2])
    wanted = {**ABSTRACT(), "extra": jax.ShapeDtypeStruct((3,), jnp.float32)}
    large = jax.ShapeDtypeStruct((512, 512), jnp.float32)
    wanted["parameters"] = {**wanted["parameters"], "large_in_own_files": large}
    message = (
        r"step 2 in .*checkpoints is of another model: 2 of 5 arrays differ \(extra absent -> "
        r"\(3,\), parameters/large_in_own_files \(1024, 512\) -> \(512, 512\)\); "
    )
    with pytest.raises(UserError, match=message):
        checkpoints.restore(wanted)
    assert checkpoints.steps() == [1, 2] and not (tmp_path / "damaged").exists()
    assert_is(checkpoints.restore(ABSTRACT()), 2)


def test_no_save_leaves_a_file_open_or_a_thread(tmp_path):
    """Otherwise a long run ends at the limit of open files: Orbax leaves three and a thread."""
    checkpoints, steps = Checkpoints(RunFolder(tmp_path), keep=1), itertools.count()

    def save():
        checkpoints.save(next(steps), {"x": jnp.arange(3.0)}, {}, None)
        checkpoints.wait()

    files, threads = left_open(save, times=30)
    checkpoints.close()
    assert files < 10 and threads < 10
