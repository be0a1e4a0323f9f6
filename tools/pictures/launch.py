"""Who does what in a job on a TPU slice, and who starts it again."""

from switch_jax.launch.targets.local import Local
from tools.pictures.svg import FAINT, SMALL, WIDTH, Picture, colour_of, tint

LEFT, RIGHT = 14, WIDTH - 14
LAPTOP, QUEUE, HOSTS, BUCKET = (colour_of(i) for i in (0, 4, 2, 3))
HOST_TOP, BUCKET_TOP = 174, 330


def draw() -> str:
    """The picture as SVG."""
    picture = Picture("A launcher, the queue, the hosts of a slice, and the bucket")
    _place(picture, LEFT, 14, 200, 66, LAPTOP, "your machine", "switch_jax launch")
    _place(picture, RIGHT - 172, 14, 172, 66, QUEUE, "Google's queue", "of requests")
    picture.path(f"M{LEFT + 200} 36 L{RIGHT - 174} 36", LAPTOP, arrow=True)
    picture.text(WIDTH / 2 + 14, 24, "1 requests a slice", "middle", size=SMALL)
    picture.path(f"M{RIGHT - 60} 80 L{RIGHT - 60} {HOST_TOP - 2}", QUEUE, arrow=True)
    picture.lines(RIGHT - 72, 114, ("2 gives the slice,", "may take it away"), "end")
    picture.path(f"M{LEFT + 50} 80 L{LEFT + 50} {HOST_TOP - 2}", LAPTOP, arrow=True)
    picture.lines(LEFT + 62, 114, ("3 starts train by SSH,", "prints its output"))

    picture.box(LEFT, HOST_TOP, RIGHT - LEFT, 82, HOSTS, fill=tint(HOSTS, 0.12))
    picture.text(LEFT + 12, HOST_TOP + 18, "slice", bold=True)
    for i, name in enumerate(("host 0", "host 1", "host 2", "host 3")):
        x = LEFT + 12 + 129 * i
        picture.box(x, HOST_TOP + 34, 121, 38, HOSTS, fill=tint(HOSTS))
        picture.text(x + 60, HOST_TOP + 53, f"{name}: train", "middle", size=SMALL)
    picture.path(f"M{LEFT + 120} {BUCKET_TOP} L{LEFT + 120} {HOST_TOP + 84}", BUCKET, arrow=True)
    picture.lines(LEFT + 132, HOST_TOP + 110, ("4 read text, and", "the newest checkpoint"))
    picture.path(
        f"M{RIGHT - 190} {HOST_TOP + 82} L{RIGHT - 190} {BUCKET_TOP - 2}", HOSTS, arrow=True
    )
    picture.lines(RIGHT - 178, HOST_TOP + 110, ("5 write checkpoints", "and records"))
    _place(picture, LEFT, BUCKET_TOP, RIGHT - LEFT, 44, BUCKET, "bucket", "")

    y = BUCKET_TOP + 78
    restarts = Local(arguments=(), model_dir="").restarts
    for x, heading in ((LEFT, "what happens"), (LEFT + 196, "who starts again")):
        picture.text(x, y, heading, bold=True)
    for i, (what, then) in enumerate(
        (
            ("the slice is taken away", "launch requests another, however often"),
            ("a crash", f"launch, {restarts} times without a new checkpoint"),
            ("a host out of reach", "launch, for an hour; then as after a crash"),
            ("a mistake", "you, when it is mended"),
            ("launch itself ends", "the job goes on; the same command follows it"),
        )
    ):
        picture.path(f"M{LEFT} {y + 15 + 28 * i} H{RIGHT}", FAINT)
        picture.text(LEFT, y + 30 + 28 * i, what, size=SMALL)
        picture.text(LEFT + 196, y + 30 + 28 * i, then, size=SMALL)
    return picture.svg(y + 30 + 28 * 5)


def _place(
    picture: Picture, x: float, y: float, wide: float, high: float, colour: str, name: str, of: str
) -> None:
    """Draws a box with a name, and in it a second line, if there is one."""
    picture.box(x, y, wide, high, colour, fill=tint(colour))
    middle = y + high / 2
    picture.text(x + wide / 2, middle - 11 * bool(of), name, "middle", bold=True)
    if of:
        picture.text(x + wide / 2, middle + 13, of, "middle", size=SMALL)
