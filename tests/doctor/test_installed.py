"""Versions that fit together or do not, and what the devices are."""

import jax
import pytest

from switch_jax.config import MeshConfig
from switch_jax.doctor import installed
from switch_jax.doctor.checks import Verdict
from switch_jax.doctor.installed import unfit
from switch_jax.partitioning.mesh import make_mesh

# Lines of the metadata of jax, and of its plugin for CUDA.
REQUIRED = [
    "jaxlib<=0.10.2,>=0.10.1",
    "numpy>=2.0",
    "scipy>=1.14; python_version < '3'",
    'jaxlib==0.10.1; extra == "ci"',
    'libtpu==0.0.42.*; extra == "tpu"',
    'jax-cuda12-plugin[with-cuda]<=0.10.2,>=0.10.2; extra == "cuda12"',
    'nvidia-cudnn-cu12<10.0,>=9.8; sys_platform == "linux" and extra == "with-cuda"',
]


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"jaxlib": "0.10.2", "libtpu": "0.0.42.1"}, None),
        ({"jaxlib": "0.10.1", "numpy": "2.0.0"}, None),
        ({"jaxlib": "0.10.3"}, "jax 0.10.2 needs jaxlib<=0.10.2,>=0.10.1, and 0.10.3 is installed"),
        ({"jaxlib": "0.10.0"}, "needs jaxlib<=0.10.2,>=0.10.1, and 0.10.0 is installed"),
        ({"libtpu": "0.0.41"}, "needs libtpu==0.0.42.*, and 0.0.41 is installed"),
        ({"libtpu": "0.0.420"}, "needs libtpu==0.0.42.*, and 0.0.420 is installed"),
        ({"libtpu": "0.0.42.1.dev20260101"}, None),
        ({"jax-cuda12-plugin": "0.9.1"}, "jax-cuda12-plugin<=0.10.2,>=0.10.2, and 0.9.1 is"),
        ({"nvidia-cudnn-cu12": "9.10.2.21"}, None),
        ({"nvidia-cudnn-cu12": "9.7.1.26"}, "nvidia-cudnn-cu12<10.0,>=9.8, and 9.7.1.26 is"),
        ({"scipy": "1.0"}, None),  # for another Python
    ],
)
def test_versions_that_jax_was_not_made_for(found, message):
    assert (said := unfit("jax 0.10.2", REQUIRED, found.get)) == message or message in said


def test_the_versions_here_fit_together():
    found = installed._versions()
    assert found.verdict == Verdict.OK
    assert f"jax {jax.__version__}, jaxlib " in found.text
    assert "driver" not in found.text  # there is none
    assert found.numbers["driver"] == "-"


def test_versions_that_do_not_fit_are_reported_in_words(monkeypatch):
    monkeypatch.setattr(installed, "_unfit", lambda package: f"{package} needs another jaxlib")
    found = str(installed._versions())
    assert found.startswith("failed   : Python 3.")
    assert found.endswith(
        "jax needs another jaxlib; install those that belong together (docs/install.md)"
    )


def test_processes_with_other_versions(monkeypatch):
    monkeypatch.setattr(installed, "gather", lambda own: [own, own | {"driver": "535.1"}])
    assert str(installed._versions()) == (
        "failed   : the versions of driver differ: - on process 0, 535.1 on process 1; "
        "install the same on all hosts (docs/install.md)"
    )


@pytest.mark.parametrize(
    "text",
    [
        "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 2023\n",
        "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  535.104.05  Release Build\n",
    ],
)
def test_versions_of_a_gpu(text, monkeypatch, tmp_path):
    monkeypatch.setattr(installed, "_NVIDIA_DRIVER", tmp_path / "version")
    (tmp_path / "version").write_text(text)
    installed_here = {"jax-cuda12-plugin": "0.10.2", "nvidia-cudnn-cu12": "9.10.2.21"}
    monkeypatch.setattr(installed, "_version", installed_here.get)
    found = installed.gpu_versions()
    assert (found["nvidia-cudnn-cu12"], found["driver"]) == ("9.10.2.21", "535.104.05")
    assert found["jax-cuda13-plugin"] == "-"


def test_devices_and_their_memory(monkeypatch):
    mesh = make_mesh(MeshConfig(1, 2, 1), jax.devices()[:2])
    assert installed._devices(mesh).text == (
        "2 virtual devices of cpu, 1 host, 1 process; mesh data x expert x model = 1 x 2 x 1"
    )
    sizes = iter([16 * 2**30, 15 * 2**30])
    monkeypatch.setattr(installed, "_memory_bytes", lambda device: next(sizes))
    found = installed._devices(mesh)
    assert "2 virtual devices of cpu with 15.0 to 16.0 GiB each, 1 host" in found.text
    assert found.numbers["memory_bytes"] == 15 * 2**30
