import pytest

from switch_jax.hardware.tpus import GIB, parse_slice
from switch_jax.planning.host_memory import host_bytes


@pytest.mark.parametrize(
    ("name", "devices"), [("v5e-1", 1), ("v5e-8", 8), ("4xv5e-256", 4), ("tpu7x-128", 8)]
)
def test_a_host_has_a_copy_of_the_state_of_its_devices(name, devices):
    """A chip of tpu7x is two devices."""
    assert host_bytes(3 * GIB, parse_slice(name)) == (16 + 3 * devices) * GIB
