"""The file of what was found: for people, and for `switch_jax plan --measured`."""

import dataclasses
import json
from collections.abc import Sequence

from etils import epath
from jax.sharding import Mesh

from switch_jax.doctor.checks import Finding
from switch_jax.runtime.processes import versions
from switch_jax.storage import atomic_write, explain_write_errors


def write_results(file: epath.Path, mesh: Mesh, findings: Sequence[Finding]) -> None:
    """Writes the findings, with the versions and devices that they are of, as JSON."""
    results = {
        "versions": versions(),
        "device_kind": mesh.devices.flat[0].device_kind,
        "mesh": dict(mesh.shape),
        "checks": [dataclasses.asdict(finding) for finding in findings],
    }
    with explain_write_errors(file):
        atomic_write(file, json.dumps(results, indent=2) + "\n")
