"""The relative position bias: from one row of lanes for each head to a band in VMEM, and back.

The bias of a pair depends only on its distance, query minus key. So the transposed scores [M, n] of
one tile of n queries use the same numbers as those of the next tile, n rows further down. One band
of [M + (tiles - 1) * n, n] serves all tiles, and tile i reads M rows of it from its own offset.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from switch_jax.kernels.attention_sizes import Tiling
from switch_jax.kernels.tiles import LANES


def to_lanes(bias: jax.Array, s: Tiling) -> jax.Array:
    """[H, 2 W] -> [blocks, heads, lanes] with distance 0 in `zero_lane`; both by query minus key.

    Where tiles divide W and L = M, nothing is cut or padded; it would have to be done again to the
    gradient of each layer. Raises ValueError where W is below M rounded up to whole lanes.
    """
    first = bias.shape[1] // 2 - s.zero_lane
    if first < 0:
        raise ValueError(f"a bias of width {bias.shape[1]} is too short for {s.num_keys} keys")
    lanes = bias[:, first : first + s.bias_lanes].astype(jnp.float32)
    lanes = jnp.pad(lanes, ((0, 0), (0, s.bias_lanes - lanes.shape[1])))
    return lanes.reshape(s.blocks, s.heads, s.bias_lanes)


def expand(lanes_ref: Any, band_ref: Any, s: Tiling) -> None:
    """band[h, x, c] = the bias of head h at distance c - x + (tiles - 1) * tile."""
    for head in range(s.heads):
        for row in range(0, s.band_rows, LANES):
            window = lanes_ref[head : head + 1, _window(row, s)]
            eight = jnp.broadcast_to(window, (8, LANES + s.tile))
            # Row x moves right by x, in two steps: by x % 8, then by 8 * (x // 8).
            index = lax.broadcasted_iota(jnp.int32, eight.shape, 0)
            for bit in (1, 2, 4):
                eight = jnp.where(index & bit != 0, pltpu.roll(eight, bit, 1), eight)
            for x in range(0, LANES, 8):
                band_ref[head, row + x : row + x + 8] = pltpu.roll(eight, x, 1)[:, LANES:]


def sum_diagonals(band_ref: Any, lanes_ref: Any, s: Tiling) -> None:
    """The transpose of `expand`."""
    lanes_ref[...] = jnp.zeros_like(lanes_ref)
    for head in range(s.heads):
        for row in range(0, s.band_rows, LANES):
            band = band_ref[head, row : row + LANES]
            band = jnp.concatenate([jnp.zeros((LANES, LANES), band.dtype), band], axis=1)
            # Row x moves left by x, in two steps: by 8 * (x // 8), then by x % 8.
            eight: Any = sum(_roll_left(band[x : x + 8], x) for x in range(0, LANES, 8))
            one: Any = sum(_roll_left(eight, x)[x : x + 1] for x in range(8))
            lanes_ref[head : head + 1, _window(row, s)] += one


def _roll_left(x: jax.Array, lanes: int) -> jax.Array:
    return pltpu.roll(x, -lanes % x.shape[1], 1)


def _window(row: int, s: Tiling) -> slice:
    """The lanes of the bias that 128 rows of the band consist of."""
    start = s.band_rows - LANES - row
    return slice(start, start + LANES + s.tile)


def rows_of(head: int, tile: Any, shape: tuple[int, ...], s: Tiling) -> tuple[Any, ...]:
    """The index that reads [m, n], the first m keys and n queries of a tile, from the band."""
    return head, pl.ds((s.tiles - 1 - tile) * s.tile, shape[0]), pl.ds(0, shape[1])
