"""Checkpoints that are written and read in pieces, and those that Orbax writes as a whole."""

import jax
import jax.numpy as jnp
import numpy as np

from switch_jax.checkpointing.streaming import create_checkpoint, open_parameters, stored_chunks
from switch_jax.run_folder import RunFolder
from tests.checkpointing.small_state import values_of


def test_a_piece_is_stored_by_itself(tmp_path):
    shapes = {
        "scale": jax.ShapeDtypeStruct((5,), jnp.float32),
        "layer": {"wi": jax.ShapeDtypeStruct((2, 3, 8, 4), jnp.float32)},
    }
    create_checkpoint(tmp_path / "0", shapes, {"scale": 0, "layer": {"wi": 2}})
    arrays = open_parameters(tmp_path / "0", shapes)
    assert arrays["layer"]["wi"].chunk_layout.read_chunk.shape == (1, 1, 8, 4)
    assert len(list(stored_chunks(arrays["layer"]["wi"], 2))) == 6
    assert list(stored_chunks(arrays["scale"], 0)) == [()]


def test_what_orbax_wrote_is_read_chunk_by_chunk(two):
    """Of an array that eight devices wrote together."""
    name = "large_in_own_files"
    expected = values_of(2)["parameters"][name]
    array = open_parameters(RunFolder(two).checkpoint(2), {name: expected})[name]
    found = list(stored_chunks(array, 1))
    assert len(found) == 8
    for piece in found:
        np.testing.assert_array_equal(array[piece].read().result(), expected[piece])
