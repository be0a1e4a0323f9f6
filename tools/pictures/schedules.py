"""The learning-rate schedules, as a run computes them."""

from collections.abc import Sequence

import jax
import numpy as np

from switch_jax.config import (
    SCHEDULES,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    RunConfig,
)
from switch_jax.optim.schedules import learning_rate_schedule
from tools.pictures.svg import FAINT, SMALL, Picture, colour_of

STEPS, WARMUP = 10_000, 1_000
MODEL = ModelConfig(
    num_embeddings=64, embed_dim=8, mlp_dim=8, head_dim=4, num_heads=2,
    num_encoder_layers=1, num_decoder_layers=1, num_experts=0,
)  # fmt: skip
LEFT, COLUMN, WIDE, TOP, ROW, HIGH = 16, 276, 244, 62, 158, 100


def draw() -> str:
    """The picture as SVG: a small chart for each schedule."""
    picture = Picture("The learning rate over training, by schedule")
    picture.text(LEFT, 20, f"The rate over {STEPS:,} steps with WARMUP_STEPS = {WARMUP:,} (dashed)")
    for i, name in enumerate(SCHEDULES):
        row, column = divmod(i, 2)
        x, y = LEFT + COLUMN * column, TOP + ROW * row
        picture.text(x, y, f"'{name}'", code=True)
        _chart(picture, x, y + 18, rates(name))
    return picture.svg(TOP + 3 * ROW - 10)


def rates(name: str) -> Sequence[float]:
    """The rates of a schedule after each hundredth of the run, as parts of its highest rate."""
    base = np.sqrt(WARMUP) if "rsqrt" in name else 1.0
    config = Config(
        RunConfig("run", STEPS, batch_size=1),
        MODEL,
        DataConfig("task", {"inputs": 8, "targets": 8}),
        optimizer=OptimizerConfig(learning_rate=base, warmup_steps=WARMUP, lr_schedule=name),
    )
    schedule = jax.jit(learning_rate_schedule(config))
    return np.asarray(schedule(np.linspace(0, STEPS, 101).astype(int))).tolist()


def _chart(picture: Picture, x: float, y: float, heights: Sequence[float]) -> None:
    bottom, warmup = y + HIGH, x + WIDE * WARMUP / STEPS
    picture.path(f"M{warmup:g} {y:g} V{bottom:g}", FAINT, dashed=True)
    picture.path(f"M{x:g} {y:g} V{bottom:g} H{x + WIDE:g}", FAINT)
    points = (
        f"{x + WIDE * i / 100:g} {bottom - HIGH * height:.1f}" for i, height in enumerate(heights)
    )
    picture.path("M" + " L".join(points), colour_of(0), width=2.5)
    picture.text(x, bottom + 14, "0", size=SMALL)
    picture.text(x + WIDE, bottom + 14, f"{STEPS:,}", "end", size=SMALL)
