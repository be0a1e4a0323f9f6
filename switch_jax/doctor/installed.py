"""What is on this machine: versions, devices and their memory, hosts and mesh."""

import functools
import importlib.metadata
import operator
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax._src.lib import cuda_versions
from jax.sharding import Mesh

from switch_jax.doctor.checks import Check, Finding, Verdict
from switch_jax.partitioning.mesh import AXES
from switch_jax.runtime.processes import difference, gather, versions
from switch_jax.units import counted

GIB = 2**30
_PLUGINS = ("jax-cuda12-plugin", "jax-cuda13-plugin")
_NVIDIA_DRIVER = Path("/proc/driver/nvidia/version")
_NOT_INSTALLED = "-"

# Extras of jax that nobody installs to use it.
_OF_DEVELOPERS = ("ci", "minimum-jaxlib")
_COMPARE = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


def installed_checks(mesh: Mesh) -> Iterator[Check]:
    """Versions of all processes, and the devices of the mesh."""
    yield Check("versions", _versions)
    yield Check("devices", functools.partial(_devices, mesh))


def _versions() -> Finding:
    """Fails where two processes have others, or where some do not fit together."""
    own = versions() | gpu_versions()
    text = ", ".join(f"{name} {v}" for name, v in own.items() if v != _NOT_INSTALLED)
    if differing := difference(gather(own)):
        return Finding("versions", Verdict.FAILED, differing, own)
    for package in ("jax", *_PLUGINS):
        if unfit := _unfit(package):
            advice = "install those that belong together (docs/install.md)"
            return Finding("versions", Verdict.FAILED, f"{text}: {unfit}", own, advice)
    return Finding("versions", Verdict.OK, text, own)


def gpu_versions() -> dict[str, str]:
    """Of what jax takes for NVIDIA's GPUs, and the driver; '-' where there is none."""
    found = {name: _version(name) or _NOT_INSTALLED for name in _PLUGINS}
    for name, function, parts in (
        ("CUDA", "cuda_runtime_get_version", 2),
        ("cuDNN", "cudnn_get_version", 3),
    ):
        get = getattr(cuda_versions, function, None)
        found[name] = _of_number(get(), parts) if get else _NOT_INSTALLED
    found["driver"] = _NOT_INSTALLED
    if _NVIDIA_DRIVER.exists():
        number = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", _NVIDIA_DRIVER.read_text())
        found["driver"] = number[1] if number else _NOT_INSTALLED
    return found


def _of_number(number: int, parts: int) -> str:
    """12080 -> '12.8' of CUDA; 91002 -> '9.10.2' of cuDNN."""
    if parts == 2:
        return f"{number // 1000}.{number % 1000 // 10}"
    return f"{number // 10000}.{number % 10000 // 100}.{number % 100}"


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
    required = importlib.metadata.requires(package) or []
    names = [re.split(r"[^\w.-]", line)[0] for line in required]
    found = {name: version for name in names if (version := _version(name))}
    return unfit(f"{package} {own}", required, found)


def unfit(package: str, required: Iterable[str], found: Mapping[str, str]) -> str | None:
    """The first requirement that the versions do not meet, in words; None: they meet all.

    Args:
      package: whose requirements they are, with its version.
      required: as in the metadata of a package: 'libtpu==0.0.42.*; extra == "tpu"'.
      found: version by package.
    """
    for line in required:
        match = re.match(r"([\w.-]+)(?:\[.*?\])?\s*\(?([^;)]*)\)?\s*;?\s*(.*)", line)
        if match is None:
            continue
        name, wanted, marker = match.groups()
        is_of_developers = any(f'"{extra}"' in marker for extra in _OF_DEVELOPERS)
        if name not in found or is_of_developers or "python_version" in marker:
            continue
        if not all(_meets(found[name], part.strip()) for part in wanted.split(",") if part):
            return f"{package} needs {name}{wanted.strip()}, and {found[name]} is installed"
    return None


def _meets(version: str, wanted: str) -> bool:
    """Whether a version is as '==0.0.42.*' or '>=0.10.1' says; True for what is not read here."""
    match = re.fullmatch(r"(==|!=|<=|>=|<|>)\s*(\d+(?:\.\d+)*)(\.\*)?", wanted)
    if match is None:
        return True
    compare, numbers = _COMPARE[match[1]], _numbers(match[2])
    found = _numbers(version)
    length = len(numbers) if match[3] else max(len(found), len(numbers))
    found, numbers = ((*n, *[0] * length)[:length] for n in (found, numbers))
    return bool(compare(found, numbers))


def _numbers(version: str) -> tuple[int, ...]:
    """'0.10.2.dev1' -> (0, 10, 2)."""
    match = re.match(r"\d+(\.\d+)*", version)
    return tuple(map(int, match[0].split("."))) if match else ()


def _devices(mesh: Mesh) -> Finding:
    """Kind, number, memory; how they are arranged."""
    kinds = sorted({device.device_kind for device in mesh.devices.flat})
    facts = gather([platform.node(), [_memory_bytes(device) for device in mesh.local_devices]])
    hosts, memory = len({host for host, _ in facts}), [n for _, here in facts for n in here]
    shape = " x ".join(str(mesh.shape[axis]) for axis in AXES)
    text = f"{counted(mesh.size, 'device')} of {', '.join(kinds)}{_memory_text(memory)}"
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
    return Finding("devices", verdict, text, numbers, "a mesh has devices of one kind")


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
