"""A step's time: what devices compute, and beside it their exchanges.

The figures are those of

switch_jax plan --gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin
--topology=v5p-256 --mesh=1,128,1
"""

from switch_jax.hardware.tpus import GENERATIONS
from tools.pictures.svg import FAINT, SMALL, WIDTH, Picture, colour_of, tint

CYCLES = {
    "attention": 21_708_170,
    "experts": 9_923_407,
    "dense FFN": 7_698_842,
    "optimiser": 2_250_543,
    "router, dispatch": 1_319_542 + 2_962_449,
    "logits, other": 1_650_488 + 6_082_324,
}
# In ms: what the exchanges take, and the part of it in which the devices wait.
EXCHANGES = {"all-to-all": (4.62, 1.89), "all-reduce": (3.05, 3.05)}
COMPUTING, WAITING = "30.6", "4.9"
LEFT, TOP, HIGH = 14, 56, 40


def draw() -> str:
    """The picture as SVG: a bar of what devices compute, and one of what their links carry."""
    clock = GENERATIONS["v5p"].clock
    times = {part: 1e3 * cycles / clock for part, cycles in CYCLES.items()}
    waiting = sum(waited for _, waited in EXCHANGES.values())
    hidden = sum(taken for taken, _ in EXCHANGES.values()) - waiting
    scale = (WIDTH - 2 * LEFT) / (sum(times.values()) + waiting)
    picture = Picture("A step's time: computing, with exchanges beside it, and waiting for them")
    picture.text(
        LEFT, 20, f"A step of Switch-Base: {COMPUTING} ms computing + {WAITING} ms waiting"
    )

    picture.text(LEFT, TOP, "what a device computes")
    x, y = float(LEFT), TOP + 14
    for i, time in enumerate(times.values()):
        picture.box(x, y, scale * time, HIGH, colour_of(i), fill=tint(colour_of(i), 0.45))
        x += scale * time
    picture.box(x, y, scale * waiting, HIGH, FAINT, dashed=True)
    picture.text(x + scale * waiting / 2, y + HIGH / 2, "waits", "middle", size=SMALL)

    picture.text(LEFT, y + HIGH + 28, "what its links carry")
    below = y + HIGH + 42
    start = x - scale * hidden
    for i, (taken, _) in enumerate(EXCHANGES.values()):
        fill = tint(colour_of(7 - i), 0.45)
        picture.box(start, below, scale * taken, HIGH, colour_of(7 - i), fill=fill)
        start += scale * taken
    picture.path(f"M{x:g} {y - 4:g} V{below + HIGH + 6:g}", dashed=True)
    beside = f"{hidden:.1f} ms beside computing"
    picture.text(x - scale * hidden - 10, below + HIGH / 2, beside, "end", size=SMALL)
    picture.text(WIDTH - LEFT, below + HIGH + 18, f"{WAITING} ms of waiting", "end", size=SMALL)
    keys = [(name, colour_of(i), time) for i, (name, time) in enumerate(times.items())]
    keys += [
        (name, colour_of(7 - i), taken) for i, (name, (taken, _)) in enumerate(EXCHANGES.items())
    ]
    for i, (name, of_key, time) in enumerate(keys):
        row, column = divmod(i, 2)
        at, middle = LEFT + 270 * column, below + HIGH + 54 + 26 * row
        picture.box(at, middle - 8, 16, 16, of_key, fill=tint(of_key, 0.45))
        picture.text(at + 26, middle, f"{name}: {time:.1f} ms", size=SMALL)
    note = "These are sums over the step, and not their order in it."
    picture.text(LEFT, below + HIGH + 60 + 26 * 4, note, size=SMALL)
    return picture.svg(below + HIGH + 80 + 26 * 4)
