"""The layers of a config: each gin file sets some macros, and later ones win."""

import re
import tempfile
from pathlib import Path

from switch_jax import gin_config
from switch_jax.config import by_macro
from switch_jax.drawing.figures import GREY
from switch_jax.utils.paths import GIN_DIR
from tools.pictures.svg import FAINT, SMALL, Picture, colour_of, tint

MACROS = ("NUM_EXPERTS", "TRAIN_STEPS", "BATCH_SIZE")
MINE = """\
include 'models/switch_demo.gin'
include 'runs/demo.gin'

MODEL_DIR = 'runs/mine'
NUM_EXPERTS = 4
TRAIN_STEPS = 200
"""
BINDING = "TRAIN_STEPS = 20"
# The files in the order in which they are read, and what includes them.
FILES = ("models/switch_base.gin", "models/switch_demo.gin", "runs/pretrain.gin", "runs/demo.gin")
LEFT, FIRST, COLUMN, ROW = 12, 214, 114, 40


def draw() -> str:
    """The picture as SVG: a row for each layer, a column for each macro, the result at the end."""
    texts = {name: (GIN_DIR / name).read_text() for name in FILES}
    texts |= {"my_config.gin": MINE, f"--gin.{BINDING.replace(' ', '')}": BINDING}
    picture = Picture("The values that the layers of a config set, and those that the run has")
    picture.text(LEFT, 20, "read from above to below; the last value wins", size=SMALL)
    for column, macro in enumerate(MACROS):
        picture.text(_x(column), 50, macro, "middle", code=True, size=SMALL)
    for row, name in enumerate(texts):
        picture.text(LEFT, _y(row), name, code=True, size=SMALL)
        picture.path(f"M{LEFT} {_y(row) + ROW / 2:g} H{FIRST + COLUMN * len(MACROS) - 8:g}", FAINT)
    run, names = _y(len(texts)) + 14, list(texts)
    picture.text(LEFT, run, "the run has", bold=True)
    for column, (macro, result) in enumerate(results().items()):
        set_by = [row for row, text in enumerate(texts.values()) if _value(text, macro)]
        *earlier, last = set_by
        for row in earlier:
            value = _value(texts[names[row]], macro)
            picture.text(_x(column), _y(row), value, "middle", colour=GREY, struck=True)
        assert int(_value(texts[names[last]], macro)) == result
        picture.path(f"M{_x(column):g} {_y(last) + 14:g} L{_x(column):g} {run - 15:g}", arrow=True)
        for y in (_y(last), run):
            box = (_x(column) - 44, y - 14, 88, 28)
            picture.box(*box, colour_of(0), fill=tint(colour_of(0)))
            picture.text(_x(column), y, str(result), "middle", bold=True)
    return picture.svg(run + 28)


def results() -> dict[str, int]:
    """What a run of these layers has, as switch_jax reads them."""
    with tempfile.TemporaryDirectory() as folder:
        mine = Path(folder) / "my_config.gin"
        mine.write_text(MINE)
        settings = by_macro(gin_config.read([str(mine)], [BINDING]).config.settings())
    return {macro: settings[macro] for macro in MACROS}


def _value(text: str, macro: str) -> str:
    """What a gin file sets a macro to, '' for nothing."""
    found = re.search(rf"(?m)^{macro} = (\w+)", text)
    return found[1] if found else ""


def _x(column: int) -> float:
    return FIRST + COLUMN * (column + 0.5)


def _y(row: int) -> float:
    return 84 + ROW * row
