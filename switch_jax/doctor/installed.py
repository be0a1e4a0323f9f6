"""What is on this machine: versions, devices and their memory, hosts and mesh."""

import functools
from collections.abc import Iterator
from typing import Any

import jax
from jax.sharding import Mesh

from switch_jax.doctor.checks import Check, Finding, Verdict
from switch_jax.partitioning.mesh import AXES
from switch_jax.runtime.processes import difference, gather, versions
from switch_jax.units import counted

GIB = 2**30


def installed_checks(mesh: Mesh) -> Iterator[Check]:
    """Versions of all processes, and the devices of the mesh."""
    yield Check("versions", _versions)
    yield Check("devices", functools.partial(_devices, mesh))


def _versions() -> Finding:
    """Fails where two processes have others."""
    facts = gather(versions() | {"config": ""})
    text = ", ".join(f"{name} {version}" for name, version in versions().items())
    differing = difference(facts)
    verdict = Verdict.OK if differing is None else Verdict.FAILED
    return Finding("versions", verdict, differing or text, dict(versions()))


def _devices(mesh: Mesh) -> Finding:
    """Kind, number, memory; how they are arranged."""
    kinds = sorted({device.device_kind for device in mesh.devices.flat})
    memory = _memory_bytes(jax.local_devices()[0])
    shape = " x ".join(str(mesh.shape[axis]) for axis in AXES)
    text = f"{counted(mesh.size, 'device')} of {', '.join(kinds)}"
    text += f" with {memory / GIB:.1f} GiB each" if memory else ""
    text += f", {jax.process_count()} process{'es' if jax.process_count() > 1 else ''}"
    text += f"; mesh data x expert x model = {shape}"
    verdict = Verdict.OK if len(kinds) == 1 else Verdict.FAILED
    advice = "a mesh has devices of one kind"
    numbers: dict[str, Any] = {"devices": mesh.size, "processes": jax.process_count()}
    return Finding("devices", verdict, text, numbers | {"memory_bytes": memory}, advice)


def _memory_bytes(device: jax.Device) -> int:
    """Of a device; 0 where it does not say."""
    statistics = device.memory_stats() if device.platform != "cpu" else None
    return (statistics or {}).get("bytes_limit", 0)
