"""The environment variables of the hosts, from environment.toml."""

import tomllib
from pathlib import Path
from typing import Any

from switch_jax.hardware import Slice

FILE = Path(__file__).with_name("environment.toml")


def environment(hardware: Slice) -> dict[str, str]:
    """The variables of every host of these slices, including libtpu's flags."""
    entries = tomllib.loads(FILE.read_text())
    found = {e["name"]: e["value"] for e in entries["variable"] if _applies(e, hardware)}
    flags = [f"--{e['name']}={e['value']}" for e in entries["flag"] if _applies(e, hardware)]
    return found | ({"LIBTPU_INIT_ARGS": " ".join(flags)} if flags else {})


def _applies(entry: dict[str, Any], hardware: Slice) -> bool:
    name = hardware.generation.name
    several = hardware.count > 1 or not entry.get("several_slices", False)
    return several and name in entry.get("generations", [name])
