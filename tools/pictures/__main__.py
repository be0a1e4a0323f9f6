"""Draws the pictures of the docs that need no run and no model, as docs/NAME.svg.

python -m tools.pictures
"""

import importlib
from pathlib import Path

DOCS = Path(__file__).resolve().parents[2] / "docs"
NAMES = (
    "capacity",
    "config_layers",
    "exchange",
    "launch",
    "loads",
    "meshes",
    "schedules",
    "step_time",
    "streams",
)


def main() -> None:
    """Draws them all."""
    for name in NAMES:
        (DOCS / f"{name}.svg").write_text(draw(name))


def draw(name: str) -> str:
    """The picture of that name as SVG."""
    svg: str = importlib.import_module(f"tools.pictures.{name}").draw()
    return svg


if __name__ == "__main__":
    main()
