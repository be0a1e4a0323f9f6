from types import SimpleNamespace

import pytest

from switch_jax.partitioning import devices


@pytest.mark.parametrize(
    ("platform", "kind", "expected"),
    [
        *(("tpu", "TPU v5 lite", False), ("tpu", "TPU v5e", False), ("tpu", "TPU v5", True)),
        *(("tpu", "TPU of tomorrow", True), ("cpu", "cpu", False), ("gpu", "NVIDIA H100", False)),
    ],
)
def test_tpus_but_v5e_compute_while_an_all_to_all_runs(platform, kind, expected, monkeypatch):
    monkeypatch.setattr(devices, "platform", lambda: platform)
    monkeypatch.setattr(devices, "device_kind", lambda: kind)
    assert devices.has_async_all_to_all() is expected


@pytest.mark.parametrize("split", [False, True])
def test_all_to_alls_are_split_where_the_compiler_can_do_that(monkeypatch, split):
    monkeypatch.setattr(devices, "platform", lambda: "tpu")
    monkeypatch.setattr(devices, "has_async_all_to_all", lambda: split)
    info = SimpleNamespace(vmem_capacity_bytes=128 * 2**20)
    monkeypatch.setattr(devices.pltpu, "get_tpu_info", lambda: info)
    assert devices.compiler_options().get("xla_tpu_enable_async_all_to_all", False) is split
