"""From files to streams, rows and hosts, by the order of the data's first epoch."""

from switch_jax.data.reading.epoch_order import EpochOrder
from tools.pictures.svg import FAINT, SMALL, Picture, colour_of, curve, tint

FILES, STREAMS, ROWS, HOSTS = 6, 4, 8, 2
TOP, HEIGHT = 66, 320  # where the columns begin, and their height
FILE, STREAM, ROW, HOST = 12, 184, 340, 476  # where the columns are
WIDE = {FILE: 104, STREAM: 92, ROW: 72, HOST: 72}


def draw() -> str:
    """The picture as SVG, with four columns."""
    order = EpochOrder(FILES, STREAMS, seed=(0,), shuffle=True)
    picture = Picture("Which streams read the parts of the files, and which hosts their rows")
    for x, lines in (
        (FILE, (f"{FILES} files", "")),
        (STREAM, (f"{STREAMS} streams", "DATA_STREAMS")),
        (ROW, (f"{ROWS} rows", "of each batch")),
        (HOST, (f"{HOSTS} hosts", "")),
    ):
        picture.text(x + WIDE[x] / 2, 20, lines[0], "middle", bold=True)
        picture.text(x + WIDE[x] / 2, 42, lines[1], "middle", size=SMALL)

    for stream in range(STREAMS):
        for shard in order.shards(stream, 0, 0):
            if shard.epoch:
                break
            parts, files = order.parts_in(shard.group), range(FILES)[order.files_in(shard.group)]
            for file in files:
                height = _step(FILES) - 10
                y = TOP + _step(FILES) * file + height / parts * shard.part
                _part(picture, y, height / parts, file, parts, stream)
                start = FILE + WIDE[FILE], y + height / parts / 2
                picture.path(curve(*start, STREAM, _middle(stream, STREAMS)), colour_of(stream))
        _box(picture, STREAM, stream, STREAMS, f"stream {stream}", stream)
        for row in range(stream * ROWS // STREAMS, (stream + 1) * ROWS // STREAMS):
            ends = _middle(stream, STREAMS), _middle(row, ROWS)
            picture.path(curve(STREAM + WIDE[STREAM], ends[0], ROW, ends[1]), colour_of(stream))
            _box(picture, ROW, row, ROWS, f"row {row}", stream)
            host = row * HOSTS // ROWS
            ends = _middle(row, ROWS), _middle(host, HOSTS)
            picture.path(curve(ROW + WIDE[ROW], ends[0], HOST, ends[1]), colour_of(stream))
    for host in range(HOSTS):
        _box(picture, HOST, host, HOSTS, f"host {host}", None)
    notes = (
        "Every stream gets one file and half of another; in the next epoch, others.",
        "Every host reads the streams of its rows. On one host, or on four, the rows",
        "are the same.",
    )
    picture.lines(FILE, TOP + HEIGHT + 20, notes)
    return picture.svg(TOP + HEIGHT + 76)


def _step(count: int) -> float:
    return HEIGHT / count


def _middle(number: int, count: int) -> float:
    return TOP + _step(count) * number + (_step(count) - 10) / 2


def _box(picture: Picture, x: int, number: int, count: int, text: str, stream: int | None) -> None:
    """Draws one of `count` boxes of the column at x, in the colour of a stream."""
    y, height = TOP + _step(count) * number, _step(count) - 10
    colour = FAINT if stream is None else colour_of(stream)
    picture.box(x, y, WIDE[x], height, colour, fill=tint(colour))
    picture.text(x + WIDE[x] / 2, y + height / 2, text, "middle", size=SMALL)


def _part(picture: Picture, y: float, height: float, file: int, parts: int, stream: int) -> None:
    """Draws a file, or a part of one, in the colour of the stream that reads it."""
    name = f"file {file}" if parts == 1 else f"part of file {file}"
    picture.box(FILE, y, WIDE[FILE], height, colour_of(stream), fill=tint(colour_of(stream)))
    picture.text(FILE + WIDE[FILE] / 2, y + height / 2, name, "middle", size=SMALL)
