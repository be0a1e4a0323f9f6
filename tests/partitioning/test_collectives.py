from jax.sharding import PartitionSpec as P

from switch_jax.partitioning.collectives import drop_axes_of_one


def test_axes_of_one_device_are_dropped_from_partition_specs():
    specs = {"x": P(("data", "expert")), "w": (P("expert", None, "model"), P())}
    mesh_shape = {"data": 1, "expert": 4, "model": 1}
    expected = {"x": P(("expert",)), "w": (P("expert", None, None), P())}
    assert drop_axes_of_one(specs, mesh_shape) == expected
    assert drop_axes_of_one(specs, {"data": 2, "expert": 4, "model": 2}) == specs
