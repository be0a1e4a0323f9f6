"""What was found, as a file for `switch_jax plan --measured` and as a page."""

import dataclasses
import datetime
import json
import platform
from collections.abc import Sequence

from etils import epath
from jax.sharding import Mesh

from switch_jax.doctor import page
from switch_jax.doctor.checks import Finding
from switch_jax.runtime.processes import versions
from switch_jax.storage import write_file


def write_results(
    file: epath.Path, config_text: str, mesh: Mesh, findings: Sequence[Finding]
) -> None:
    """Writes the findings as JSON, with the versions and devices that they are of, and as a page.

    Args:
      file: of the JSON; the page has its name with .html.
      config_text: of the run whose step was measured.
      mesh: the devices.
      findings: of all checks.
    """
    results = {
        "time": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "host": platform.node(),
        "versions": versions(),
        "device_kind": mesh.devices.flat[0].device_kind,
        "mesh": dict(mesh.shape),
        "checks": [dataclasses.asdict(finding) for finding in findings],
        "config": config_text,
    }
    write_file(file, json.dumps(results, indent=2) + "\n")
    write_file(file.with_suffix(".html"), page.render(results, findings), str(file))
