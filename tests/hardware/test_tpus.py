import pytest

from switch_jax.hardware.tpus import (
    GENERATIONS,
    GIB,
    Slice,
    device_peak_flops,
    equal_slices,
    parse_slice,
    slice_from_devices,
)
from switch_jax.utils.errors import UserError


@pytest.mark.parametrize(
    ("name", "topology", "chips", "devices", "accelerator_type", "chips_per_host", "hosts"),
    [
        ("v3-32", "v3:4x4", 16, 32, "v3-32", 4, 4),  # 32 cores, two devices a chip
        ("v4-8", "v4:2x2x1", 4, 4, "v4-8", 4, 1),  # 8 cores, one device a chip
        ("v5e-1", "v5e:1x1", 1, 1, "v5litepod-1", 1, 1),
        ("v5e-8", "v5e:2x4", 8, 8, "v5litepod-8", 8, 1),  # one host of eight, not two of four
        ("v5e-16", "v5e:4x4", 16, 16, "v5litepod-16", 4, 4),
        ("2xv5e-256", "v5e:16x16", 512, 512, "v5litepod-256", 4, 128),
        ("v5p-2048", "v5p:8x8x16", 1024, 1024, "v5p-2048", 4, 256),
        ("v5p:4x4x8", "v5p:4x4x8", 128, 128, "v5p-256", 4, 32),
        ("v6e-8", "v6e:2x4", 8, 8, "v6e-8", 8, 1),
        ("tpu7x-128", "tpu7x:4x4x4", 64, 128, "tpu7x-128", 4, 16),
    ],
)
def test_what_a_slice_is_made_of_and_called(
    name, topology, chips, devices, accelerator_type, chips_per_host, hosts
):
    hardware = parse_slice(name)
    assert (hardware.chips, hardware.devices) == (chips, devices)
    assert (hardware.chips_per_host, hardware.hosts) == (chips_per_host, hosts)
    assert hardware.compiler_name == topology
    assert topology.endswith(f":{hardware.topology}")
    assert hardware.accelerator_type == accelerator_type


@pytest.mark.parametrize(
    ("name", "told"),
    [
        *((name, "known are v3-8.*v5e-256") for name in ("v9-8", "v5p", "0xv5e-256", "v5e:0x4")),
        ("v5e:2x2x2", "known are v5e-1, v5e-4"),
        ("v5-256", r"'v5-256' .did you mean .*v5p-256.*\?\); known"),
        ("v5p-100", "known are v5p-8, .*v5p-8192"),
    ],
)
def test_an_unknown_slice_lists_the_known_ones(name, told):
    with pytest.raises(UserError, match=f"no TPU topology.*{told}"):
        parse_slice(name)


def test_clocks_are_those_that_are_known():
    # 940 MHz and 1050 MHz are in Table 4 of the TPU v4 paper.
    assert GENERATIONS["v3"].clock == pytest.approx(940e6, rel=0.01)
    assert GENERATIONS["v4"].clock == pytest.approx(1050e6, rel=0.01)


def test_every_slice_has_whole_hosts():
    for generation in GENERATIONS.values():
        for shape in generation.shapes:
            hardware = Slice("any", generation, shape)
            assert hardware.hosts_per_slice * hardware.chips_per_host == hardware.chips


class _Device:
    """As JAX describes a device of a TPU."""

    def __init__(self, kind, coords, slice_index=0):
        self.device_kind, self.coords, self.slice_index = kind, coords, slice_index


def test_the_slice_of_devices():
    pod = [_Device("TPU v5p", (x, y, z)) for x in range(2) for y in range(2) for z in range(4)]
    assert slice_from_devices(pod) == parse_slice("v5p-32")
    two = [_Device("TPU v5 lite", (x, y, 0), s) for s in (0, 1) for x in range(4) for y in range(2)]
    assert slice_from_devices(two) == parse_slice("2xv5e:4x2")
    cores = [_Device("TPU v3", (x, y, 0)) for x in range(2) for y in range(2) for _ in (0, 1)]
    assert slice_from_devices(cores) == parse_slice("v3-8")
    assert slice_from_devices([_Device("cpu", ())]) is None


def test_peaks_by_what_jax_calls_a_device():
    assert device_peak_flops("NVIDIA A100-SXM4-40GB") == 312e12
    assert device_peak_flops("NVIDIA H200") == device_peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert device_peak_flops("NVIDIA H100 PCIe") is None
    assert device_peak_flops("TPU v3") == 123e12 / 2


@pytest.mark.parametrize(
    "name, others",
    [
        ("v5p-1024", ["v5p:4x4x32", "v5p:4x8x16"]),  # itself is 8x8x8
        ("v5p:4x4x32", ["v5p:4x8x16", "v5p-1024"]),
        ("v5p-64", []),  # smaller than two cubes of 4 x 4 x 4
        ("2xv5e-64", ["v5e-128"]),
        ("4xv5e-64", ["v5e-256", "2xv5e-128"]),
        ("v5e-256", []),
    ],
)
def test_slices_of_the_same_chips(name, others):
    found = list(equal_slices(parse_slice(name)))
    assert [other.name for other in found] == others
    assert {other.chips for other in found} <= {parse_slice(name).chips}
    assert all(parse_slice(other.name) == other for other in found)


def test_the_memory_of_every_host_on_gke_is_known():
    for generation in GENERATIONS.values():
        if generation.gke_machine is not None:
            assert len(generation.host_memory) == len(generation.one_host)
    assert parse_slice("v3-32").host_memory_bytes is None
    of_hosts = {"v5e-1": 48, "v5e-256": 192, "v5e-8": 384, "v5p-256": 448, "v6e-16": 720}
    for name, gibibytes in of_hosts.items():
        assert parse_slice(name).host_memory_bytes == gibibytes * GIB
