"""What the pictures share: their look, and the few shapes that they are made of.

A picture is on a white ground of its own, so it is read on pages of any colour. It is WIDTH wide or
less, with text that is still read where a phone shows it at two thirds of its size. Shapes leave
room for text of wide fonts, since each reader has others.
"""

import html
from collections.abc import Sequence

from switch_jax.drawing.figures import COLOURS, GREY

WIDTH = 560
TEXT, SMALL = 16, 14  # sizes of fonts
INK, FAINT = "#222222", "#bbbbbb"


class Picture:
    """An SVG picture, to which shapes are added; x and y grow to the right and downwards."""

    def __init__(self, title: str) -> None:
        """Starts a picture; `title` is read out, and not seen."""
        self._title = title
        self._parts: list[str] = []

    def svg(self, height: float, width: float = WIDTH) -> str:
        """The file's text."""
        size = f'width="{width:g}" height="{height:g}"'
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width:g} {height:g}" '
            f'font-family="system-ui, sans-serif" font-size="{TEXT}">\n'
            f"<title>{html.escape(self._title)}</title>\n"
            f'<rect {size} rx="6" fill="#ffffff"/>\n'
        )
        return head + "\n".join(self._parts) + "\n</svg>\n"

    def text(
        self,
        x: float,
        y: float,
        text: str,
        anchor: str = "start",
        *,
        colour: str = INK,
        size: int = TEXT,
        bold: bool = False,
        code: bool = False,
        struck: bool = False,
    ) -> None:
        """Writes a line whose middle is at the height y; `anchor` says what of it is at x."""
        look = f' font-size="{size}"' * (size != TEXT) + ' font-weight="bold"' * bold
        look += ' font-family="ui-monospace, monospace"' * code
        look += ' text-decoration="line-through"' * struck
        place = f'x="{x:g}" y="{y + 0.35 * size:g}" text-anchor="{anchor}"'
        self._parts.append(f'<text {place} fill="{colour}"{look}>{html.escape(text)}</text>')

    def lines(self, x: float, y: float, lines: Sequence[str], anchor: str = "start") -> None:
        """Writes small lines, one below the other; the middle of the first is at the height y."""
        for i, line in enumerate(lines):
            self.text(x, y + 19 * i, line, anchor, size=SMALL)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        colour: str = GREY,
        *,
        fill: str = "none",
        dashed: bool = False,
    ) -> None:
        """Draws a rounded box, whose upper left corner is at x, y."""
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        place = f'x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"'
        self._parts.append(f'<rect {place} rx="5" fill="{fill}" stroke="{colour}"{dashes}/>')

    def chip(
        self, x: float, y: float, text: str, colour: str, width: float, *, dropped: bool = False
    ) -> None:
        """Draws a token in a small box that begins at x and whose middle is at the height y."""
        fill = "#ffffff" if dropped else tint(colour)
        self.box(x, y - 11, width, 22, colour, fill=fill, dashed=dropped)
        self.text(x + width / 2, y, text, "middle", size=SMALL)

    def slot(self, x: float, y: float, width: float) -> None:
        """Draws an empty place for a chip."""
        self.box(x, y - 11, width, 22, FAINT)

    def square(self, x: float, y: float, size: float, fill: str) -> None:
        """Draws one of several squares that touch."""
        place = f'x="{x:g}" y="{y:g}" width="{size:g}" height="{size:g}"'
        self._parts.append(f'<rect {place} fill="{fill}" stroke="#ffffff"/>')

    def path(
        self,
        path: str,
        colour: str = GREY,
        *,
        dashed: bool = False,
        arrow: bool = False,
        width: float = 1.5,
    ) -> None:
        """Draws a line along an SVG path, with an arrow's head where it ends to the right or down.

        The head points along the last two absolute points of the path.
        """
        dashes = ' stroke-dasharray="5 4"' if dashed else ""
        line = f'fill="none" stroke="{colour}" stroke-width="{width:g}"{dashes}'
        self._parts.append(f'<path d="{path}" {line}/>')
        if arrow:
            *_, x0, y0, x1, y1 = (float(n) for n in path.replace("M", "").replace("L", " ").split())
            self._head(x0, y0, x1, y1, colour)

    def _head(self, x0: float, y0: float, x1: float, y1: float, colour: str) -> None:
        length = ((x1 - x0) ** 2 + (y1 - y0) ** 2) ** 0.5
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        corners = [(x1, y1)] + [
            (x1 - 9 * dx - side * dy, y1 - 9 * dy + side * dx) for side in (4.5, -4.5)
        ]
        points = " ".join(f"{x:g},{y:g}" for x, y in corners)
        self._parts.append(f'<polygon points="{points}" fill="{colour}"/>')


def curve(x1: float, y1: float, x2: float, y2: float) -> str:
    """The path of a line that leaves and arrives horizontally."""
    middle = (x1 + x2) / 2
    return f"M{x1:g} {y1:g} C{middle:g} {y1:g} {middle:g} {y2:g} {x2:g} {y2:g}"


def colour_of(number: int) -> str:
    """A colour for each of a few things."""
    return (*COLOURS[:6], "#8468C8", "#7D8A3C")[number % 8]


def tint(colour: str, strength: float = 0.3) -> str:
    """A light tint of a colour, for the ground of dark text."""
    parts = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return "#" + "".join(f"{round(255 - strength * (255 - part)):02x}" for part in parts)
