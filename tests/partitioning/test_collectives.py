import pytest
from jax.sharding import PartitionSpec as P

from switch_jax.partitioning import collectives
from switch_jax.partitioning.collectives import drop_axes_of_one, has_async_all_to_all


def test_axes_of_one_device_are_dropped_from_partition_specs():
    specs = {"x": P(("data", "expert")), "w": (P("expert", None, "model"), P())}
    mesh_shape = {"data": 1, "expert": 4, "model": 1}
    expected = {"x": P(("expert",)), "w": (P("expert", None, None), P())}
    assert drop_axes_of_one(specs, mesh_shape) == expected
    assert drop_axes_of_one(specs, {"data": 2, "expert": 4, "model": 2}) == specs


@pytest.mark.parametrize(
    ("platform", "kind", "expected"),
    [
        *(("tpu", "TPU v5 lite", False), ("tpu", "TPU v5e", False), ("tpu", "TPU v5", True)),
        *(("tpu", "TPU of tomorrow", True), ("cpu", "cpu", False), ("gpu", "NVIDIA H100", False)),
    ],
)
def test_tpus_but_v5e_compute_while_an_all_to_all_runs(platform, kind, expected, monkeypatch):
    monkeypatch.setattr(collectives, "platform", lambda: platform)
    monkeypatch.setattr(collectives, "device_kind", lambda: kind)
    assert has_async_all_to_all() is expected
