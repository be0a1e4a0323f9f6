import jax
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.partitioning.placing import put_batch, rows_on_this_host


@pytest.mark.parametrize("mesh", [(2, 2, 2), (1, 1, 8)])
def test_every_device_has_its_rows(mesh):
    devices = make_mesh(MeshConfig(*mesh))
    batch = {"tokens": np.arange(8 * 3).reshape(8, 3), "weights": np.ones(8, np.float32)}
    put = put_batch(batch, devices)
    rows = 8 // (mesh[0] * mesh[1])
    for name, array in batch.items():
        np.testing.assert_array_equal(put[name], array)
        assert put[name].dtype == array.astype(jax.numpy.asarray(array).dtype).dtype
        for shard in put[name].addressable_shards:
            data, expert, _ = np.argwhere(devices.devices == shard.device)[0]
            first = rows * (data * mesh[1] + expert)
            np.testing.assert_array_equal(shard.data, array[first : first + rows])


def test_one_host_has_all_rows():
    assert rows_on_this_host(make_mesh(MeshConfig(2, 4, 1)), 16) == list(range(16))
