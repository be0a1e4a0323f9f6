"""Attention with T5's relative position bias, fused for TPU: no [L, M] array ever leaves VMEM.

How it is done (letters as in the model: B batch, L queries, M keys, H heads, K head size):
- Scores are computed transposed, [M, L]: keys on sublanes, queries on lanes. The softmax then sums
  over sublanes.
- A program takes the heads that share a block of 128 lanes as they lie in [B, L, H * K]. For the
  scores it separates them by zeroing the lanes of the other heads, without moving any: multiplying
  the zeros takes no time, since that part of a matrix unit 128 wide would otherwise be idle.
- All other products are transposed, too: the matrix unit holds scores, and the K rows of a head
  pass through it. If scores passed through it, a head would use K of the unit's 128 columns.
- Causal attention of several tiles leaves out keys behind all queries of a tile. How many keys are
  left is constant for a span of tiles: an array's size is constant in a program.
- The products that make scores are written first, for all heads. So the matrix unit works on one
  head while the exponentials of another are taken.
- The bias depends only on query minus key. So all tiles of queries read the same band of rows, tile
  i from an offset of its own. The band is expanded once for all batch rows of a program's heads;
  its gradient is accumulated in a second band, which is summed along diagonals once.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.ad_checkpoint import checkpoint_name
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from switch_jax.kernels.attention_band import expand, rows_of, sum_diagonals, to_lanes
from switch_jax.kernels.attention_sizes import Tiling, choose_tiling
from switch_jax.kernels.tiles import LANES

# Rematerialisation saves what carries this name, so that the forward kernel runs once only.
ATTENDED = "attended"
# The score of a masked pair: finite, so that a query that sees no key does not become NaN.
MASKED = -1e9


def fused_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None,
    query_segments: jax.Array,
    key_segments: jax.Array,
    *,
    num_heads: int,
    causal: bool,
    interpret: bool = False,
) -> jax.Array:
    """softmax(q k^T + bias, masked) v for each head; scores are not scaled, as in T5.

    A query sees the keys of its own segment, except for padding. A query that sees no key gets the
    mean of all values, of long causal rows that of the first ones alone, and passes no gradient to
    q, k and bias.

    Args:
      q: [B, L, H * K], head by head, bfloat16 or float32, as is the result; sums are float32.
      k, v: [B, M, H * K]. They may have fewer heads; then equal groups of neighbouring heads of
        queries share one.
      bias: [H, 2 W] float32, added to the scores by distance: column W + d is for the key d
        positions to the left of the query. W is a multiple of 128, at least L and M. None = no
        bias.
      query_segments, key_segments: [B, L], [B, M] int32; 0 = padding.
      causal: a query sees no key to its right; L = M.
      interpret: runs on any platform, slowly; for tests.
    """
    sizes = choose_tiling(q.shape, k.shape[1], num_heads)
    k, v = (_for_each_query_head(x, q.shape[-1], sizes.head_size) for x in (k, v))  # [B, M, H * K]
    # No query has segment -1, so no query sees padding.
    key_segments = jnp.where(key_segments == 0, -1, key_segments)
    band = None if bias is None else to_lanes(bias, sizes)
    segments = query_segments[:, None], key_segments[:, None]
    return _attention(sizes, causal, interpret, q, k, v, band, *segments)


def _for_each_query_head(x: jax.Array, width: int, head_size: int) -> jax.Array:
    """Repeats the heads of keys or values for the queries of a group: [B, M, ...] of this width."""
    if x.shape[-1] == width:
        return x
    # Not an axis of heads, which would have a TPU lay out the array anew.
    heads = jnp.split(x, x.shape[-1] // head_size, axis=-1)
    return jnp.concatenate([head for head in heads for _ in range(width // x.shape[-1])], axis=-1)


def _dot(a: jax.Array, b: jax.Array, axes: tuple[int, int]) -> jax.Array:
    """Sums over one axis of each, in float32."""
    dimensions = ((axes[:1], axes[1:]), ((), ()))
    return lax.dot_general(a, b, dimensions, preferred_element_type=jnp.float32)


def _split_heads(x: jax.Array, s: Tiling) -> list[jax.Array]:
    """[n, width] -> for each head the same array with the lanes of all other heads zeroed."""
    if s.heads == 1:
        return [x]
    owner = lax.broadcasted_iota(jnp.int32, x.shape, 1) // s.head_size
    return [jnp.where(owner == head, x, jnp.zeros_like(x)) for head in range(s.heads)]


def _column(row: jax.Array, width: int) -> jax.Array:
    """[1, M] -> [M, width], the same number along each row."""
    column = jnp.broadcast_to(row, (LANES, row.shape[1])).T
    return jnp.concatenate([column] * pl.cdiv(width, LANES), axis=1)


def _mask(key_column: jax.Array, query_row: jax.Array, first: Any, causal: bool) -> jax.Array:
    """[m, n] bool: whether the query sees the key; the first query has position `first`."""
    mask = key_column[:, : query_row.shape[1]] == query_row
    if causal:
        key = lax.broadcasted_iota(jnp.int32, mask.shape, 0)
        query = lax.broadcasted_iota(jnp.int32, mask.shape, 1)
        mask &= key - query <= first
    return mask


def _for_each_tile(body: Any, s: Tiling, causal: bool) -> None:
    """Calls body(tile, number of queries, number of keys) for all tiles; the last may be short.

    Each span of tiles works on the first keys alone, those that one of its queries may see.
    """
    for span in s.spans(causal):

        def one_tile(tile, _=None, span=span):
            body(tile, span.queries, span.keys)

        if span.tiles == 1:
            one_tile(span.first)
        else:
            lax.fori_loop(span.first, span.first + span.tiles, one_tile, None)


def _for_each_row(body: Any, s: Tiling) -> None:
    if s.rows == 1:
        body(0)
    else:
        lax.fori_loop(0, s.rows, lambda row, _: body(row), None)


def _scores(
    keys: list[jax.Array], q: jax.Array, band_ref: Any, tile: Any, s: Tiling
) -> list[jax.Array]:
    """[m, n] float32 for each head, not masked."""
    scores = [_dot(key, q, (1, 1)) for key in keys]
    if band_ref is None:
        return scores
    shape = scores[0].shape
    bands = [band_ref[rows_of(head, tile, shape, s)] for head in range(s.heads)]
    return [x + band for x, band in zip(scores, bands, strict=True)]


def _forward_kernel(
    q_ref, k_ref, v_ref, bias_ref, query_segments_ref, key_segments_ref,
    out_ref, lse_ref, band_ref, *, s: Tiling, causal: bool,
) -> None:  # fmt: skip
    if bias_ref is not None:
        pl.when(pl.program_id(2) == 0)(lambda: expand(bias_ref, band_ref, s))

    def one_row(row):
        keys, values = _split_heads(k_ref[row], s), v_ref[row].T
        key_column = _column(key_segments_ref[row], s.tile)

        def one_tile(tile, count, num_keys):
            at, seen = pl.ds(tile * s.tile, count), slice(num_keys)
            q = q_ref[row, at]
            mask = _mask(
                key_column[seen], query_segments_ref[row, :, at], tile * s.tile, causal
            )  # [m, n]
            mixed = []
            scores_by_head = _scores([key[seen] for key in keys], q, band_ref, tile, s)
            for head, scores in enumerate(scores_by_head):
                scores = jnp.where(mask, scores, MASKED)  # [m, n]
                highest = jnp.max(scores, axis=0, keepdims=True)  # [1, n]
                weights = jnp.exp(scores - highest)  # [m, n]
                total = jnp.sum(weights, axis=0, keepdims=True)  # [1, n]
                lse_ref[row, head : head + 1, at] = highest + jnp.log(total)
                value = values[s.head_lanes(head), seen]  # [K, m]
                mixed.append(_dot(value, weights.astype(q.dtype), (1, 0)) / total)  # [K, n]
            out_ref[row, at] = jnp.concatenate(mixed).T.astype(out_ref.dtype)

        _for_each_tile(one_tile, s, causal)

    _for_each_row(one_row, s)


def _backward_kernel(
    q_ref, k_ref, v_ref, bias_ref, query_segments_ref, key_segments_ref, out_ref, lse_ref, dout_ref,
    dq_ref, dk_ref, dv_ref, dbias_ref, band_ref, dband_ref, sums_ref, *, s: Tiling, causal: bool,
) -> None:  # fmt: skip
    if bias_ref is not None:

        @pl.when(pl.program_id(2) == 0)
        def _():
            expand(bias_ref, band_ref, s)
            dband_ref[...] = jnp.zeros_like(dband_ref)

    def one_row(row):
        keys, values = _split_heads(k_ref[row], s), _split_heads(v_ref[row], s)
        keys_transposed = k_ref[row].T
        key_column = _column(key_segments_ref[row], s.tile)
        if sums_ref is not None:
            sums_ref[...] = jnp.zeros_like(sums_ref)

        def one_tile(tile, count, num_keys):
            at, seen = pl.ds(tile * s.tile, count), slice(num_keys)
            q, dout = q_ref[row, at], dout_ref[row, at]
            queries, douts = q.T, dout.T  # [width, n]
            mask = _mask(
                key_column[seen], query_segments_ref[row, :, at], tile * s.tile, causal
            )  # [m, n]
            out = out_ref[row, at].astype(jnp.float32)  # [n, width]
            products = (out * dout.astype(jnp.float32)).T  # [width, n]
            dq, dk, dv = [], [], []
            scores = _scores([key[seen] for key in keys], q, band_ref, tile, s)
            dweights = [_dot(value[seen], dout, (1, 1)) for value in values]  # [m, n] each
            for head in range(s.heads):
                lanes = s.head_lanes(head)
                lse = lse_ref[row, head : head + 1, at]  # [1, n]
                sees_none = lse < MASKED / 2  # [1, n]
                masked = jnp.where(sees_none, -math.log(num_keys), MASKED)  # [1, n]
                weights = jnp.exp(jnp.where(mask, scores[head] - lse, masked))  # [m, n]
                dv.append(_dot(douts[lanes], weights.astype(q.dtype), (1, 1)))  # [K, m]

                mean = jnp.sum(products[lanes], axis=0, keepdims=True)  # [1, n]
                sees_some = jnp.where(sees_none, 0.0, 1.0)  # [1, n]
                dscores = weights * ((dweights[head] - mean) * sees_some)  # [m, n]
                if dband_ref is not None:
                    dband_ref[rows_of(head, tile, dscores.shape, s)] += dscores
                dscores = dscores.astype(q.dtype)
                dk.append(_dot(queries[lanes], dscores, (1, 1)))  # [K, m]
                dq.append(_dot(keys_transposed[lanes, seen], dscores, (1, 0)))  # [K, n]
            dq_ref[row, at] = jnp.concatenate(dq).T.astype(dq_ref.dtype)
            for i, (ref, gradient) in enumerate(((dk_ref, dk), (dv_ref, dv))):
                if sums_ref is None:
                    ref[row] = jnp.concatenate(gradient).astype(ref.dtype).T  # [M, width]
                else:
                    sums_ref[i, :, seen] += jnp.concatenate(gradient)  # [width, m]

        _for_each_tile(one_tile, s, causal)
        if sums_ref is not None:
            dk_ref[row], dv_ref[row] = (sums_ref[i].astype(dk_ref.dtype).T for i in range(2))

    _for_each_row(one_row, s)
    if bias_ref is not None:
        last = pl.num_programs(2) - 1
        pl.when(pl.program_id(2) == last)(lambda: sum_diagonals(dband_ref, dbias_ref, s))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _attention(s, causal, interpret, *arrays):
    return _forward(s, causal, interpret, *arrays)[0]


def _forward(s, causal, interpret, *arrays):
    q, has_bias = arrays[0], arrays[3] is not None
    lse = jax.ShapeDtypeStruct((s.batch, s.blocks, s.heads, s.length), jnp.float32)
    out, lse = _call(
        _forward_kernel,
        s,
        causal,
        interpret,
        arrays,
        out_shape=[jax.ShapeDtypeStruct(q.shape, q.dtype), lse],
        out_specs=[s.spec(s.length), s.statistics_spec()],
        scratch_shapes=[s.band() if has_bias else None],
        products=2,
    )
    out, lse = checkpoint_name((out, lse), ATTENDED)
    return out, (*arrays, out, lse)


def _backward(s, causal, interpret, saved, dout):
    q, k, v, bias = saved[:4]
    like = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (q, k, v)]
    has_bias = bias is not None
    dbias = jax.ShapeDtypeStruct((s.cores, *bias.shape), jnp.float32) if has_bias else None
    sums = pltpu.VMEM((2, s.width, s.num_keys), jnp.float32)
    dq, dk, dv, dbias = _call(
        _backward_kernel,
        s,
        causal,
        interpret,
        (*saved, dout),
        out_shape=[*like, dbias],
        out_specs=[*s.specs(), s.dbias_spec() if has_bias else None],
        scratch_shapes=[*[s.band() if has_bias else None] * 2, sums if s.tiles > 1 else None],
        products=5,
    )
    return dq, dk, dv, dbias if dbias is None else dbias.sum(0), None, None


_attention.defvjp(_forward, _backward)


def _call(kernel, s, causal, interpret, arrays, *, out_shape, products, **options):
    q_spec, k_spec, v_spec = s.specs()
    bias_spec = None if arrays[3] is None else s.bias_spec()
    segments = s.segments_spec(s.length), s.segments_spec(s.num_keys)
    saved = [s.spec(s.length), s.statistics_spec(), s.spec(s.length)][: len(arrays) - 6]
    scores = s.batch * s.blocks * s.heads * s.scores(causal)
    traffic = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves((arrays, out_shape)))
    has_bias = arrays[3] is not None
    return pl.pallas_call(
        functools.partial(kernel, s=s, causal=causal),
        grid=(s.cores, s.blocks, s.steps),
        in_specs=[q_spec, k_spec, v_spec, bias_spec, *segments, *saved],
        out_shape=out_shape,
        compiler_params=pltpu.CompilerParams(
            # The bands are filled at the first step of a block, and used until its last step.
            dimension_semantics=("parallel", "parallel", "arbitrary"),
            vmem_limit_bytes=s.vmem_bytes(arrays[0].dtype.itemsize, has_bias),
        ),
        cost_estimate=pl.CostEstimate(
            flops=2 * products * scores * s.head_size,
            transcendentals=scores,
            bytes_accessed=traffic,
        ),
        interpret=interpret,
        name=kernel.__name__.strip("_").replace("kernel", "attention"),
        **options,
    )(*arrays)
