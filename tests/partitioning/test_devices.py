import pytest

from switch_jax.partitioning import devices


@pytest.mark.parametrize(
    ("platform", "kind", "all_to_alls_in_background", "gathers_within_products"),
    [
        ("tpu", "TPU v3", True, False),
        ("tpu", "TPU v4", True, False),
        ("tpu", "TPU v5", True, False),
        ("tpu", "TPU v5 lite", False, True),
        ("tpu", "TPU v5e", False, True),
        ("tpu", "TPU v6 lite", True, False),
        ("tpu", "TPU of tomorrow", True, False),
        ("cpu", "cpu", False, False),
        ("gpu", "NVIDIA H100", False, False),
    ],
)
def test_what_runs_beside_computation(
    platform, kind, all_to_alls_in_background, gathers_within_products, monkeypatch
):
    monkeypatch.setattr(devices, "platform", lambda: platform)
    monkeypatch.setattr(devices, "device_kind", lambda: kind)
    assert devices.has_async_all_to_all() is all_to_alls_in_background
    assert devices.gathers_within_products() is gathers_within_products
