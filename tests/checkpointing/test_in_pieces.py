"""Checkpoints that are written and read in pieces, and those that Orbax writes as a whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.checkpointing import Checkpoints, load_parameters
from switch_jax.checkpointing.in_pieces import create_checkpoint, open_parameters, stored_pieces
from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.run_folder import RunFolder

SHAPES = {
    "scale": jax.ShapeDtypeStruct((5,), jnp.float32),
    "layer": {"wi": jax.ShapeDtypeStruct((2, 3, 8, 4), jnp.float32)},
}
AXES = {"scale": 0, "layer": {"wi": 2}}


def random_parameters():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda s: rng.normal(size=s.shape).astype(np.float32), SHAPES)


def load(path):
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return load_parameters(
        path, jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=one), SHAPES)
    )


def test_pieces_make_up_a_checkpoint_that_orbax_reads(tmp_path):
    checkpoint = RunFolder(tmp_path).checkpoint(0)
    create_checkpoint(checkpoint, SHAPES, AXES)
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(load(tmp_path)))
    arrays, expected = open_parameters(checkpoint, SHAPES, write=True), random_parameters()
    arrays["scale"][:] = expected["scale"]
    for place in np.ndindex(2, 3):
        arrays["layer"]["wi"][place] = expected["layer"]["wi"][place]
    for array, other in zip(
        jax.tree.leaves(load(tmp_path)), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(array, other)


def test_a_piece_is_stored_by_itself(tmp_path):
    create_checkpoint(tmp_path / "0", SHAPES, AXES)
    arrays = open_parameters(tmp_path / "0", SHAPES)
    assert arrays["layer"]["wi"].chunk_layout.read_chunk.shape == (1, 1, 8, 4)
    assert len(list(stored_pieces(arrays["layer"]["wi"], 2))) == 6
    assert list(stored_pieces(arrays["scale"], 0)) == [()]


@pytest.mark.parametrize("devices", [1, 3])
def test_what_orbax_wrote_is_read_chunk_by_chunk(tmp_path, devices):
    mesh = make_mesh(MeshConfig(1, devices, 1), jax.devices()[:devices])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(None, "expert"))
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    expected = random_parameters()
    state = {
        "parameters": {
            "scale": jax.device_put(expected["scale"], whole),
            "layer": {"wi": jax.device_put(expected["layer"]["wi"], sharding)},
        }
    }
    folder = RunFolder(tmp_path)
    checkpoints = Checkpoints(folder, keep=1)
    checkpoints.save(3, state, {}, None)
    checkpoints.close()
    array = open_parameters(folder.checkpoint(3), SHAPES)["layer"]["wi"]
    found = list(stored_pieces(array, 2))
    assert len(found) == devices
    for piece in found:
        np.testing.assert_array_equal(array[piece].read().result(), expected["layer"]["wi"][piece])
