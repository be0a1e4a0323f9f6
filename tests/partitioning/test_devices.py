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


@pytest.mark.parametrize(
    ("platform", "kind", "expected"),
    [
        *(("tpu", "TPU v5 lite", True), ("tpu", "TPU v5e", True), ("tpu", "TPU v5", False)),
        *(("tpu", "TPU v4", False), ("tpu", "TPU v6 lite", False), ("tpu", "TPU v3", False)),
        *(("tpu", "TPU of tomorrow", False), ("cpu", "cpu", False)),
    ],
)
def test_v5e_alone_gathers_within_products(platform, kind, expected, monkeypatch):
    monkeypatch.setattr(devices, "platform", lambda: platform)
    monkeypatch.setattr(devices, "device_kind", lambda: kind)
    assert devices.gathers_within_products() is expected
