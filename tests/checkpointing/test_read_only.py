"""Parameters alone come back from another run's folder, in which nothing changes."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from switch_jax.checkpointing import Checkpoints, find_checkpoint, load_parameters, lock_run
from switch_jax.config import MeshConfig
from switch_jax.errors import UserError
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.run_folder import RunFolder

PLACES = {
    "experts": {"wi": PartitionSpec("expert", "data", "model")},
    "norm": {"scale": PartitionSpec()},
}


def _parameters(step):
    large = np.arange(4 * 256 * 512, dtype=np.float32).reshape(4, 256, 512)  # files of its own
    return {"experts": {"wi": large + step}, "norm": {"scale": np.array([step, -0.0, 0.5])}}


def _abstract(mesh_shape):
    mesh = make_mesh(MeshConfig(*mesh_shape))
    return jax.tree.map(
        lambda p, place: jax.ShapeDtypeStruct(
            p.shape, jnp.float32, sharding=NamedSharding(mesh, place)
        ),
        _parameters(0),
        PLACES,
    )


def _assert_is(parameters, step):
    found, expected = (jax.tree.leaves(tree) for tree in (parameters, _parameters(step)))
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float32
        assert np.asarray(a).tobytes() == b.astype(np.float32).tobytes()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a run with the checkpoints of steps 3 and 10."""
    folder = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(RunFolder(folder), 3)
    for step in (3, 10):
        parameters = jax.tree.map(jnp.float32, _parameters(step))
        optimizer = {"moment": jnp.zeros(7), "none": None}
        state = {"step": jnp.int32(step), "parameters": parameters, "optimizer": optimizer}
        checkpoints.save(step, state, {"whose": "mine"}, None)
    checkpoints.close()
    return folder


def test_the_newest_is_taken_or_one_that_is_named(run):
    abstract = _abstract((1, 1, 1))
    _assert_is(load_parameters(run, abstract), 10)
    _assert_is(load_parameters(str(run / "checkpoints" / "3"), abstract), 3)
    _assert_is(load_parameters(run, abstract, step=3), 3)
    assert find_checkpoint(run) == run / "checkpoints" / "10"


def test_they_come_back_on_another_mesh(run):
    abstract = _abstract((2, 2, 2))
    parameters = load_parameters(run, abstract)
    _assert_is(parameters, 10)
    for a, b in zip(jax.tree.leaves(parameters), jax.tree.leaves(abstract), strict=True):
        assert a.sharding == b.sharding


def _content(folder):
    """All that is in it, with the times at which it was written."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(folder.rglob("*"))
    }


def test_nothing_changes_in_the_folder_of_a_run_that_goes_on(run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "checkpoints" / "11.orbax-checkpoint-tmp").mkdir()  # a save under way
    lock = lock_run(RunFolder(folder))
    before = _content(folder)
    _assert_is(load_parameters(folder, _abstract((1, 1, 1))), 10)
    assert _content(folder) == before
    lock.close()


@pytest.mark.parametrize("file", ["_METADATA", "manifest.ocdbt", "ocdbt.process_0/d/*"])
def test_a_damaged_one_is_refused_and_left_as_it_is(run, tmp_path, file):
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    damaged = folder / "checkpoints" / "10"
    for path in (damaged / "state").glob(file):
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    before = _content(folder)
    with pytest.raises(UserError, match=r"checkpoints/10 cannot be read \(.+\): it is damaged, or"):
        load_parameters(folder, _abstract((1, 1, 1)))
    assert _content(folder) == before
    _assert_is(load_parameters(folder, _abstract((1, 1, 1)), step=3), 3)


def test_what_is_not_there_is_named(run, tmp_path):
    with pytest.raises(
        UserError, match=r"no folder .*/absent to take a model from: give.*`hf down"
    ):
        find_checkpoint(tmp_path / "absent")
    with pytest.raises(UserError, match=r"has no checkpoint: give the MODEL_DIR of a run .*STEP"):
        find_checkpoint(tmp_path)
    with pytest.raises(UserError, match=r"has no checkpoint of step 4: there are 3, 10"):
        find_checkpoint(run, step=4)


def test_another_model_is_refused(run):
    abstract = _abstract((1, 1, 1))
    abstract["experts"]["wi"] = jax.ShapeDtypeStruct((8, 256, 512), jnp.float32)
    abstract["router"] = jax.ShapeDtypeStruct((5,), jnp.float32)
    message = (
        r"checkpoints/10 is of another model: 2 of 3 arrays differ \(experts/wi \(4, 256, 512\) "
        r"-> \(8, 256, 512\), router absent -> \(5,\)"
    )
    with pytest.raises(UserError, match=message):
        load_parameters(run, abstract)
