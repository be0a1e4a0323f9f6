import pytest

from switch_jax.errors import UserError
from switch_jax.gpus import is_gpu_name, parse_cluster
from switch_jax.hardware import device_peak_flops


@pytest.mark.parametrize(
    "name, kind, devices, servers",
    [("h100-1", "H100 80GB HBM3", 1, 1), ("a100-8", "A100", 8, 1), ("h200-64", "H200", 64, 8)],
)
def test_names_that_people_use(name, kind, devices, servers):
    cluster = parse_cluster(name)
    assert (cluster.gpu.device_kind, cluster.devices, cluster.servers) == (kind, devices, servers)


@pytest.mark.parametrize(
    "name, message",
    [
        ("h100", "no GPUs 'h100'; known are a100-1, h100-1, h200-1"),
        ("h10-8", "no GPUs 'h10-8'; did you mean h100"),
        ("h100-0", "no GPUs 'h100-0'"),
        ("h100-eight", "no GPUs 'h100-eight'"),
        ("H100-8", "no GPUs 'H100-8'; did you mean h100"),
        ("2xh100-8", "no GPUs '2xh100-8'; did you mean h100"),
        ("h100-12", "'h100-12': a server has 8 GPUs; write 1 to 8, or a multiple of 8"),
        ("h100-99992", "or a multiple of 8 up to 8192"),
    ],
)
def test_a_name_that_is_none(name, message):
    with pytest.raises(UserError, match=message):
        parse_cluster(name)


def test_gpus_and_slices_are_told_apart_by_their_names():
    assert all(map(is_gpu_name, ["h100", "h100-8", "a100-1", "b200-8", "2xh100-8", "H100-8"]))
    slices = ["v5p-256", "2xv5e-256", "tpu7x-128", "v4-8", "v32", "v5e:4x4", "5e-256", "gpu"]
    assert not any(map(is_gpu_name, slices))


def test_peaks_by_what_jax_calls_a_device():
    assert device_peak_flops("NVIDIA A100-SXM4-40GB") == 312e12
    assert device_peak_flops("NVIDIA H200") == device_peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert device_peak_flops("NVIDIA H100 PCIe") is None
