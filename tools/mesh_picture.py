"""Draws how parameters and tokens lie on a mesh, by the sharding rules (the paper's Figure 9).

python -m tools.mesh_picture docs/meshes.png
"""

import sys
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from matplotlib.axes import Axes

from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import BATCH, make_mesh
from switch_jax.partitioning.rules import parameter_specs

MESHES = [(16, 1, 1), (1, 1, 16), (4, 1, 4), (1, 16, 1), (1, 4, 4)]
SIZE = 16  # of each axis of an array that is drawn: it divides over every mesh
AXES = {"dense FFN": ("embed", "mlp"), "experts": ("expert", "embed", "mlp")}
GREY = "#808080"  # on a transparent ground, to be read on white and on black


def main() -> None:
    """Writes the picture to the path that the command line names."""
    (path,) = map(Path, sys.argv[1:])
    matplotlib.use("Agg")
    figure, plots = plt.subplots(3, len(MESHES), figsize=(9, 6.6), squeeze=False)
    for column, sizes in zip(plots.T, MESHES, strict=True):
        mesh = make_mesh(MeshConfig(*sizes))
        for plot, (name, parts) in zip(column, parts_on(mesh).items(), strict=True):
            _draw(plot, name, parts)
        column[0].set_title(" x ".join(map(str, sizes)), color=GREY, fontsize=11)
    for plot, name in zip(plots[:, 0], parts_on(mesh), strict=True):
        plot.set_ylabel(name, color=GREY, fontsize=11)
    figure.suptitle("data x expert x model, 16 devices: colours are parts", color=GREY, fontsize=12)
    figure.tight_layout()
    figure.savefig(path, dpi=110, transparent=True)


def parts_on(mesh: Mesh) -> dict[str, np.ndarray]:
    """For tokens and parameters the number of the part that each device holds, by device."""
    specs = {"tokens": (BATCH, None)}
    shapes = {name: np.broadcast_to(0.0, (SIZE,) * len(names)) for name, names in AXES.items()}
    specs |= parameter_specs(AXES, shapes, mesh)
    return {name: _parts(mesh, spec) for name, spec in specs.items()}


def _parts(mesh: Mesh, spec: tuple) -> np.ndarray:
    shape = (SIZE,) * len(spec)
    slices = NamedSharding(mesh, PartitionSpec(*spec)).devices_indices_map(shape)
    starts = {d: tuple(s.start or 0 for s in index) for d, index in slices.items()}
    numbers = {start: number for number, start in enumerate(sorted(set(starts.values())))}
    return np.array([numbers[starts[device]] for device in mesh.devices.flat])


def _draw(plot: Axes, name: str, parts: np.ndarray) -> None:
    count = parts.max() + 1
    colours = (parts + 0.5) / count
    plot.imshow(colours.reshape(4, 4), cmap="turbo", vmin=0, vmax=1)
    plot.set_xticks(np.arange(-0.5, 4), [])
    plot.set_yticks(np.arange(-0.5, 4), [])
    plot.grid(color=GREY, linewidth=1)
    plot.tick_params(length=0)
    plot.spines[:].set_color(GREY)
    of = "all on each device" if count == 1 else f"1/{count} on each device"
    plot.set_xlabel(of, color=GREY, fontsize=9)


if __name__ == "__main__":
    main()
