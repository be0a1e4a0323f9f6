"""How parameters and tokens lie on a mesh, by the sharding rules (the paper's Figure 9)."""

import colorsys
import dataclasses

import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from switch_jax.partitioning.mesh import ACTIVATIONS, AXES
from switch_jax.partitioning.rules import parameter_specs
from tools.pictures.svg import SMALL, Picture

MESHES = [(16, 1, 1), (1, 1, 16), (4, 1, 4), (1, 16, 1), (1, 4, 4)]
SIZE = 16  # of each axis of an array that is drawn: it divides over every mesh
PARAMETERS = {"dense FFN": ("embed", "mlp"), "experts": ("expert", "embed", "mlp")}
LEFT, TOP, COLUMN, ROW, CELL = 12, 66, 109, 160, 24


@dataclasses.dataclass(frozen=True)
class Device:
    """What a mesh needs to know of a device, so that none has to be there."""

    id: int
    process_index: int = 0
    platform: str = "cpu"
    device_kind: str = "cpu"


def draw() -> str:
    """The picture as SVG: a column for each mesh, a row for tokens and for each parameter."""
    picture = Picture("Tokens and parameters over 16 devices, for five meshes")
    picture.text(LEFT, 20, "16 devices (squares) in five meshes, data x expert x model;")
    picture.text(LEFT, 40, "squares of one colour hold the same part")
    for column, sizes in enumerate(MESHES):
        x = LEFT + COLUMN * column
        picture.text(x + 2 * CELL, TOP, " x ".join(map(str, sizes)), "middle", bold=True)
        devices = np.array([Device(i) for i in range(16)], object).reshape(sizes)
        for row, (name, parts) in enumerate(parts_on(Mesh(devices, AXES)).items()):
            y = TOP + 28 + ROW * row
            if not column:
                picture.text(LEFT, y, name)
            _draw(picture, x, y + 14, parts)
    return picture.svg(TOP + 3 * ROW + 12)


def parts_on(mesh: Mesh) -> dict[str, np.ndarray]:
    """For activations and parameters the number of the part that each device holds, by device."""
    specs: dict[str, tuple] = {"activations": tuple(ACTIVATIONS)}
    shapes = {
        name: np.broadcast_to(0.0, (SIZE,) * len(names)) for name, names in PARAMETERS.items()
    }
    specs |= parameter_specs(PARAMETERS, shapes, mesh)
    return {name: _parts(mesh, spec) for name, spec in specs.items()}


def _parts(mesh: Mesh, spec: tuple) -> np.ndarray:
    shape = (SIZE,) * len(spec)
    slices = NamedSharding(mesh, PartitionSpec(*spec)).devices_indices_map(shape)
    starts = {d: tuple(s.start or 0 for s in index) for d, index in slices.items()}
    numbers = {start: number for number, start in enumerate(sorted(set(starts.values())))}
    return np.array([numbers[starts[device]] for device in mesh.devices.flat])


def _draw(picture: Picture, x: float, y: float, parts: np.ndarray) -> None:
    count = int(parts.max()) + 1
    for device, part in enumerate(parts.tolist()):
        row, column = divmod(device, 4)
        picture.square(x + CELL * column, y + CELL * row, CELL, _hue(part / count))
    of = "all" if count == 1 else f"1/{count} each"
    picture.text(x + 2 * CELL, y + 4 * CELL + 14, of, "middle", size=SMALL)


def _hue(turn: float) -> str:
    red, green, blue = colorsys.hls_to_rgb(turn, 0.62, 0.6)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"
