"""A mesh with the attributes that `planning` reads, for tests without libtpu."""

import dataclasses

import numpy as np


@dataclasses.dataclass
class Device:
    """A chip of the torus."""

    coords: tuple[int, int, int]
    slice_index: int = 0


@dataclasses.dataclass
class FakeMesh:
    """Devices by (data, expert, model)."""

    devices: np.ndarray
    axis_names: tuple[str, ...] = ("data", "expert", "model")
