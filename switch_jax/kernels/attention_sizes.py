"""How an attention call is cut into programs and tiles, and the part of each array in a program."""

import dataclasses
import itertools
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from switch_jax.kernels.tiles import LANES, round_up_to_lanes

TILE_SCORES = 512 * 512  # scores of one head at a time: 1 MiB of VMEM, enough to fill the units
CORES = 2  # of a v4 or v5p chip, which splits the first parallel axis of a grid over both
CAUSAL_SPANS = 8  # each is code of its own, which takes a second or two to compile


class Span(NamedTuple):
    """Neighbouring tiles of queries, which work on the same keys: the first ones of the row."""

    first: int
    tiles: int
    queries: int  # of each tile
    keys: int


@dataclasses.dataclass(frozen=True)
class Tiling:
    """How a call is cut up: its batch into cores x steps x rows, its queries into tiles.

    `batch`, `length`, `num_keys` and `head_size` are B, L, M, K; there are `blocks` blocks of
    lanes, of `heads` heads each. The scores of `tile` queries are held at once.
    """

    batch: int
    length: int
    num_keys: int
    head_size: int
    heads: int
    blocks: int
    cores: int
    steps: int
    rows: int
    tile: int

    @property
    def width(self) -> int:
        """Lanes of a block."""
        return self.heads * self.head_size

    @property
    def tiles(self) -> int:
        """How many of the queries' tiles there are."""
        return pl.cdiv(self.length, self.tile)

    @property
    def band_rows(self) -> int:
        """Tile i takes M rows from row (tiles - 1 - i) * tile."""
        return round_up_to_lanes((self.tiles - 1) * self.tile + self.num_keys)

    @property
    def zero_lane(self) -> int:
        """Where distance 0 stands in a bias laid out by query minus key."""
        return self.band_rows - (self.tiles - 1) * self.tile

    @property
    def bias_lanes(self) -> int:
        """Lanes of a head's bias, one for each distance."""
        return self.band_rows + self.tile

    def head_lanes(self, head: int) -> slice:
        """The lanes of one head."""
        return slice(head * self.head_size, (head + 1) * self.head_size)

    def spans(self, causal: bool) -> list[Span]:
        """All tiles in their order, in spans that end, where causal, at the last query's key."""
        full, rest = divmod(self.length, self.tile)
        number = min(full, CAUSAL_SPANS if causal else 1)
        ends = [full * i // number for i in range(1, number + 1)]
        spans = [
            Span(first, end - first, self.tile, end * self.tile if causal else self.num_keys)
            for first, end in itertools.pairwise([0, *ends])
        ]
        return [*spans, *[Span(full, 1, rest, self.num_keys)] * (rest > 0)]

    def scores(self, causal: bool) -> int:
        """How many pairs of queries and keys of a row a head computes."""
        return sum(span.tiles * span.queries * span.keys for span in self.spans(causal))

    def vmem_bytes(self, itemsize: int, has_bias: bool) -> int:
        """The memory that the backward kernel, the larger one, may use; `itemsize` is that of q."""
        lanes = round_up_to_lanes(self.width)
        blocks = 4 * self.rows * (self.length + self.num_keys) * lanes
        bands = 2 * self.heads * self.band_rows * self.tile * has_bias
        sums = 2 * lanes * round_up_to_lanes(self.num_keys) * (self.tiles > 1)
        # The compiler keeps more copies of tiles that are larger than they should be.
        copies = 3 if self.tile * self.num_keys <= TILE_SCORES else 5
        temporaries = copies * self.heads * self.tile * self.num_keys
        # Twice the blocks: the next ones are fetched while the present ones are computed with.
        return 2 * blocks * itemsize + 4 * (bands + sums + temporaries) + 2**20

    # The part of each array that a program of the grid (core, block, step) works on.

    def _rows(self, core: Any, step: Any) -> Any:
        return core * self.steps + step

    def spec(self, length: int) -> pl.BlockSpec:
        """Of [B, length, H * K]."""
        shape = (self.rows, length, self.width)
        return pl.BlockSpec(shape, lambda c, b, i: (self._rows(c, i), 0, b))

    def specs(self) -> list[pl.BlockSpec]:
        """Of q, k, v."""
        return [self.spec(self.length), self.spec(self.num_keys), self.spec(self.num_keys)]

    def segments_spec(self, length: int) -> pl.BlockSpec:
        """Of [B, 1, length]."""
        return pl.BlockSpec((self.rows, 1, length), lambda c, b, i: (self._rows(c, i), 0, 0))

    def statistics_spec(self) -> pl.BlockSpec:
        """Of [B, blocks, heads, L]."""
        shape = (self.rows, None, self.heads, self.length)
        return pl.BlockSpec(shape, lambda c, b, i: (self._rows(c, i), b, 0, 0))

    def bias_spec(self) -> pl.BlockSpec:
        """Of [blocks, heads, lanes]."""
        return pl.BlockSpec((None, self.heads, self.bias_lanes), lambda c, b, i: (b, 0, 0))

    def dbias_spec(self) -> pl.BlockSpec:
        """Of [cores, blocks, heads, lanes]."""
        shape = (None, None, self.heads, self.bias_lanes)
        return pl.BlockSpec(shape, lambda c, b, i: (c, b, 0, 0))

    def band(self) -> Any:
        """Scratch memory for the bias of each head, spread out by key and query."""
        return pltpu.VMEM((self.heads, self.band_rows, self.tile), jnp.float32)


def choose_tiling(shape: tuple[int, ...], num_keys: int, num_heads: int) -> Tiling:
    """The sizes for queries of shape [B, L, H * K] and M = `num_keys` keys."""
    batch, length, inner = shape
    head_size = inner // num_heads
    width = max(head_size, LANES)
    if width % LANES or inner % width or width % head_size:
        width = inner
    cores = CORES if batch % CORES == 0 else 1
    tile = min(
        round_up_to_lanes(length), max(LANES, TILE_SCORES // round_up_to_lanes(num_keys) & -LANES)
    )
    # Several short rows form one step of the grid, since each step costs hundreds of cycles.
    max_rows = max(1, TILE_SCORES // (round_up_to_lanes(length) * round_up_to_lanes(num_keys)))
    rows = max(n for n in range(1, max_rows + 1) if batch // cores % n == 0)
    return Tiling(
        batch,
        length,
        num_keys,
        head_size,
        heads=width // head_size,
        blocks=inner // width,
        cores=cores,
        steps=batch // cores // rows,
        rows=rows,
        tile=tile,
    )
