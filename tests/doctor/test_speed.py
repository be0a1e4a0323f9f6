"""Speeds of 8 virtual devices, and what is said of slow ones."""

import jax
import pytest

from switch_jax.config import MeshConfig
from switch_jax.doctor import speed
from switch_jax.doctor.checks import Verdict, run_checks
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.planning.measured import Exchange


@pytest.fixture
def machine(monkeypatch):
    """Measured in a moment."""
    monkeypatch.setattr(speed, "_SECONDS", 0.01)
    mesh = make_mesh(MeshConfig(2, 4, 1))
    with jax.set_mesh(mesh):
        yield speed.Machine(mesh)


def test_every_speed_of_a_mesh_is_measured(machine):
    found = {finding.name: finding for finding in run_checks(speed.speed_checks(machine))}
    axes = ("data", "expert", "data+expert")
    exchanges = {f"{op} over {axis}" for op in speed.EXCHANGES for axis in axes}
    assert set(found) == {"products", "memory"} | exchanges
    assert all(finding.verdict == Verdict.OK for finding in found.values())
    assert found["products"].numbers["flops_per_second"] == machine.flops_per_second > 0
    for name in exchanges:
        assert found[name].numbers["bytes_per_second"] > 0
        assert found[name].numbers["small_seconds"] > 0
    assert set(machine.speeds.exchanges) == exchanges


def test_the_rate_is_that_of_the_arrays(machine, monkeypatch):
    monkeypatch.setattr(
        speed, "seconds_of", lambda run: jax.block_until_ready(run()) is None or 2.0
    )
    assert machine.flops_per_second == 2 * 1024**3 / 2.0
    assert machine.bytes_per_second == 2 * 64 * 2**20 / 2.0
    assert machine.exchange("all-to-all", ("expert",)) == Exchange(8 * 2**20 / 2.0, 2.0)


class Fake:
    """A machine whose figures are these."""

    flops_per_second, bytes_per_second = 100e12, 1e12
    exchanged = [("all-to-all", ("expert",))]
    name = speed.Machine.name

    def __init__(self, kind, rate):
        self.mesh = make_mesh(MeshConfig(1, 8, 1))
        self.kind, self.rate = kind, rate

    def exchange(self, op, axes):
        return Exchange(self.rate, 1e-5, planned_bytes_per_second=90e9)


@pytest.fixture
def v5p(monkeypatch):
    """What the tables say of a v5p: 459 TFLOP/s and 2765 GB/s."""
    monkeypatch.setattr(speed, "device_peak_flops", lambda kind: 459e12)
    monkeypatch.setattr(speed, "device_bandwidth", lambda kind: 1.5e12)


def test_a_slow_link_and_slow_products_fail_with_numbers_and_advice(v5p):
    found = list(run_checks(speed.speed_checks(Fake("TPU v5p", 30e9))))
    assert [finding.verdict for finding in found] == [Verdict.FAILED, Verdict.OK, Verdict.FAILED]
    products, memory, link = map(str, found)
    assert "100 TFLOP/s a device, 22% of their peak; look for another program" in products
    assert "1e+03 GB/s a device, 67% of what they have" in memory
    assert "30 GB/s a device, 10 us for 64 KiB, 33% of what plan assumes; a link may be" in link
    assert found[2].numbers == {
        "bytes_per_second": 30e9,
        "planned_bytes_per_second": 90e9,
        "small_seconds": 1e-5,
    }


def test_a_fast_link_passes(v5p):
    *_, link = run_checks(speed.speed_checks(Fake("TPU v5p", 80e9)))
    assert link.verdict == Verdict.OK and "89% of what plan assumes" in link.text
