"""What is on this machine: versions, devices and their memory, hosts and mesh."""

import functools
import importlib.metadata
import platform
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from packaging.requirements import Requirement

from switch_jax.doctor.checks import Check, Finding, Verdict
from switch_jax.partitioning.mesh import AXES
from switch_jax.runtime.processes import difference, gather, versions
from switch_jax.units import counted

GIB = 2**30
_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
_OF_NVIDIA = ("nvidia-cuda-runtime-cu12", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13")
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_NOT_INSTALLED = "-"

# Extras of jax that nobody installs to use it.
_OF_DEVELOPERS = {"ci", "minimum-jaxlib"}


def installed_checks(mesh: Mesh) -> Iterator[Check]:
    """Versions of all processes, and the devices of the mesh."""
    yield Check("versions", _versions)
    yield Check("devices", functools.partial(_devices, mesh))


def _versions() -> Finding:
    """Fails where two processes have others, or where some do not fit together."""
    own = versions() | gpu_versions()
    text = ", ".join(f"{name} {v}" for name, v in own.items() if v != _NOT_INSTALLED)
    if differing := difference(gather(own)):
        return Finding(Verdict.FAILED, differing, own)
    for package in ("jax", *_PLUGINS):
        if unfit := _unfit(package):
            advice = "install those that belong together (docs/install.md)"
            return Finding(Verdict.FAILED, f"{text}: {unfit}", own, advice)
    return Finding(Verdict.OK, text, own)


def gpu_versions() -> dict[str, str]:
    """Of what jax takes for NVIDIA's GPUs, and the driver; '-' where there is none."""
    found = {name: _version(name) or _NOT_INSTALLED for name in (*_PLUGINS, *_OF_NVIDIA)}
    number = None
    if _NVIDIA_DRIVER.exists():
        number = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", _NVIDIA_DRIVER.read_text())
    return found | {"driver": number[1] if number else _NOT_INSTALLED}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _unfit(package: str) -> str | None:
    """What of the packages that are installed does not fit this one; None: all do."""
    own = _version(package)
    if own is None:
        return None
    return unfit(f"{package} {own}", importlib.metadata.requires(package) or [], _version)


def unfit(
    package: str, required: Iterable[str], version_of: Callable[[str], str | None]
) -> str | None:
    """The first requirement that what is installed does not meet, in words; None: it meets all.

    Args:
      package: whose requirements they are, with its version.
      required: as in the metadata of a package: 'libtpu==0.0.42.*; extra == "tpu"'.
      version_of: the version of a package; None: it is not installed.
    """
    for requirement in map(Requirement, required):
        extras = set(re.findall(r"extra == ['\"]([\w-]+)", str(requirement.marker)))
        is_for_here = requirement.marker is None or any(
            requirement.marker.evaluate({"extra": extra})
            for extra in (extras or {""}) - _OF_DEVELOPERS
        )
        version = version_of(requirement.name) if is_for_here else None
        if version and not requirement.specifier.contains(version, prereleases=True):
            return (
                f"{package} needs {requirement.name}{requirement.specifier}, and {version} is "
                "installed"
            )
    return None


def _devices(mesh: Mesh) -> Finding:
    """Kind, number, memory; how they are arranged."""
    kinds = sorted({device.device_kind for device in mesh.devices.flat})
    facts = gather([platform.node(), [_memory_bytes(device) for device in mesh.local_devices]])
    hosts, memory = len({host for host, _ in facts}), [n for _, here in facts for n in here]
    shape = " x ".join(str(mesh.shape[axis]) for axis in AXES)
    device = "virtual device" if kinds == ["cpu"] else "device"
    text = f"{counted(mesh.size, device)} of {', '.join(kinds)}{_memory_text(memory)}"
    text += f", {counted(hosts, 'host')}, {jax.process_count()} process"
    text += "es" if jax.process_count() > 1 else ""
    text += f"; mesh data x expert x model = {shape}"
    numbers: dict[str, Any] = {
        "devices": mesh.size,
        "hosts": hosts,
        "processes": jax.process_count(),
        "memory_bytes": min(memory),
    }
    verdict = Verdict.OK if len(kinds) == 1 else Verdict.FAILED
    return Finding(verdict, text, numbers, "a mesh has devices of one kind")


def _memory_text(memory: list[int]) -> str:
    least, most = min(memory) / GIB, max(memory) / GIB
    if not most:
        return ""
    each = f"{most:.1f}" if least == most else f"{least:.1f} to {most:.1f}"
    return f" with {each} GiB each"


def _memory_bytes(device: jax.Device) -> int:
    """Of a device; 0 where it does not say."""
    statistics = device.memory_stats() if device.platform != "cpu" else None
    return (statistics or {}).get("bytes_limit", 0)
