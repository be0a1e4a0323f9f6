"""The load of experts with and without balancing, as a report shows it.

python -m tools.pictures.loads runs/loads/loss runs/loads/none

writes down the loads of the first 180 steps of two runs, which are trained with

switch_jax train --gin_file=runs/demo_switch.gin --gin.LOAD_BALANCE=none --gin.TRAIN_STEPS=180
--gin.MESH_EXPERT=1 --gin.LOG_PERIOD=10 --gin.MODEL_DIR=runs/loads/none

and in the same way with LOAD_BALANCE=loss.
"""

import io
import json
import sys
from pathlib import Path

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure

from switch_jax.drawing.figures import STYLE
from switch_jax.reports.routers import draw_load
from switch_jax.run_folder import RunFolder, read_records

RECORDS = Path(__file__).with_name("loads.json")
STACK, LAYER, LAST = "decoder", 0, 180
TITLES = {"loss": "Healthy: LOAD_BALANCE = 'loss'", "none": "Collapsed: LOAD_BALANCE = 'none'"}


def main() -> None:
    """Writes the loads of the runs that the command line names."""
    loads = {}
    for name, folder in zip(TITLES, sys.argv[1:], strict=True):
        records = read_records(RunFolder.at(folder).metrics).value
        train = [r for r in records if r["kind"] == "train" and r["step"] <= LAST]
        loads[name] = {
            "step": [record["step"] for record in train],
            "load": [np.round(r["router"][STACK]["load"][LAYER], 4).tolist() for r in train],
        }
    RECORDS.write_text(json.dumps(loads) + "\n")


def draw() -> str:
    """The picture as SVG: a heat map for each run."""
    loads = json.loads(RECORDS.read_text())
    look = {**STYLE, "font.size": 11, "axes.titlelocation": "left", "axes.titleweight": "bold"}
    with style.context(["default", look]):  # whatever was set before
        figure = Figure((5.6, 5.4), layout="constrained")
        for ax, (name, title) in zip(figure.subplots(2, 1), TITLES.items(), strict=True):
            draw_load(ax, np.array(loads[name]["step"]), np.array(loads[name]["load"]))
            ax.set_title(title, pad=10)
        file = io.StringIO()
        figure.savefig(file, format="svg", dpi=100, metadata={"Date": None})
    return file.getvalue()


if __name__ == "__main__":
    main()
