"""The fused kernel, interpreted on CPU, against attention with explicit [B, H, L, M] arrays.

In float32; tests/doctor/test_kernel_checks.py has bfloat16 too.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from switch_jax.config import MeshConfig
from switch_jax.kernels import attention_sizes
from switch_jax.kernels.attention_kernel import fused_attention
from switch_jax.model.dot_product_attention import dot_product_attention
from switch_jax.model.fused_attention import on_mesh
from switch_jax.partitioning.mesh import BATCH, MODEL, make_mesh


def reference(q, k, v, bias, mask):
    """Softmax attention; the mask is [B, L, M]."""
    heads, length, memory = bias.shape[0], q.shape[1], k.shape[1]
    q, k, v = (x.reshape(*x.shape[:2], heads, -1) for x in (q, k, v))
    distance = np.arange(length)[:, None] - np.arange(memory)[None, :]
    scores = jnp.einsum("blhk,bmhk->bhlm", q, k) + bias[:, bias.shape[1] // 2 + distance]
    scores = jnp.where(mask[:, None], scores, -1e9)
    weights = jnp.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return jnp.einsum("bhlm,bmhk->blhk", weights, v).reshape(*q.shape[:2], -1)


def _segments(rng, batch, length):
    """Packed examples with padding at the end, and a row that is all padding."""
    rows = np.sort(rng.integers(0, 4, (batch, length)))[:, ::-1]
    rows[-1] = 0
    return rows.astype(np.int32)


def _case(batch, length, memory, heads, size):
    """q, k, v, bias; segments of queries and keys; a cotangent."""
    rng = np.random.default_rng(length)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    q = normal(batch, length, heads * size) * size**-0.5
    k, v = (normal(batch, memory, heads * size) for _ in range(2))
    width = -(-max(length, memory) // 128) * 128
    bias = jnp.asarray(rng.normal(size=(heads, 2 * width)), jnp.float32)
    query_segments = _segments(rng, batch, length)
    key_segments = query_segments if length == memory else _segments(rng, batch, memory)
    return (q, k, v, bias), (query_segments, key_segments), normal(batch, length, heads * size)


@functools.partial(jax.jit, static_argnums=0)
def _value_and_gradients(function, arrays, cotangent):
    value, pullback = jax.vjp(function, *arrays)
    return value, *pullback(cotangent)


def _compare(arrays, segments, cotangent, *, causal, with_bias, of_all=True):
    """`of_all` queries, or of those that see a key."""
    heads = arrays[3].shape[0]
    query, key = segments
    mask = (query[:, :, None] == key[:, None, :]) & (key != 0)[:, None, :]
    if causal:
        mask &= np.tri(query.shape[1], dtype=bool)
    compared = 1 if of_all else mask.any(-1)[..., None]  # [B, L, 1]
    count, no_bias = 4 if with_bias else 3, jnp.zeros_like(arrays[3])

    def ours(q, k, v, bias=None):
        return compared * fused_attention(
            q, k, v, bias, query, key, num_heads=heads, causal=causal, interpret=True
        )

    def theirs(q, k, v, bias=None):
        return compared * reference(q, k, v, no_bias if bias is None else bias, mask)

    got = _value_and_gradients(ours, arrays[:count], cotangent)
    expected = _value_and_gradients(theirs, arrays[:count], cotangent)
    for name, a, b in zip(("out", "dq", "dk", "dv", "dbias"), got, expected, strict=False):
        np.testing.assert_allclose(a, b, atol=2e-6 * np.abs(b).max(), err_msg=name)


def test_grouped_queries_read_the_keys_and_values_of_their_group():
    """Four heads of queries, two of keys and values, without a bias."""
    (q, k, v, _), (segments, _), cotangent = _case(2, 16, 16, 4, 64)
    k, v = k[..., :128], v[..., :128]

    def of(attend):
        def attended(q, k, v):
            return attend(q, k, v, None, segments, segments, num_heads=4, causal=True)

        return _value_and_gradients(attended, (q, k, v), cotangent)

    def spelt_out(q, k, v, *rest, **options):
        heads = (jnp.stack([x[..., :64], x[..., :64], x[..., 64:], x[..., 64:]], 2) for x in (k, v))
        return dot_product_attention(q, *(x.reshape(2, 16, 256) for x in heads), *rest, **options)

    expected = of(spelt_out)
    for attend in (functools.partial(fused_attention, interpret=True), dot_product_attention):
        for name, a, b in zip(("out", "dq", "dk", "dv"), of(attend), expected, strict=True):
            np.testing.assert_allclose(a, b, atol=3e-6 * np.abs(b).max(), err_msg=name)


@pytest.mark.parametrize(
    ("batch", "length", "memory", "heads", "size", "causal", "with_bias"),
    [
        (2, 16, 16, 4, 32, True, True),  # four heads share a block of lanes
        (4, 18, 18, 4, 64, False, True),  # two do, in two blocks, for two batch rows of each core
        (3, 114, 114, 1, 128, True, True),  # one has it for itself; an odd batch
        (2, 9, 9, 3, 64, False, True),  # 192 lanes do not divide into blocks of 128
        (2, 7, 130, 2, 64, False, True),
        (2, 130, 7, 2, 64, False, False),
    ],
)
def test_values_and_gradients(batch, length, memory, heads, size, causal, with_bias):
    case = _case(batch, length, memory, heads, size)
    _compare(*case, causal=causal, with_bias=with_bias)


@pytest.mark.parametrize(
    ("length", "causal", "tile", "spans"),
    [
        (300, True, 128, 8),
        (300, True, 128, 1),  # of two tiles
        (300, False, 256, 8),  # of 384 lanes, 256 are no divisor
    ],
)
def test_long_sequences_are_worked_on_in_tiles(length, causal, tile, spans, monkeypatch):
    monkeypatch.setattr(attention_sizes, "TILE_SCORES", tile * 384)
    monkeypatch.setattr(attention_sizes, "CAUSAL_SPANS", spans)
    assert attention_sizes.choose_tiling((2, length, 64), length, 1).tile == tile
    case = _case(2, length, length, 1, 64)
    _compare(*case, causal=causal, with_bias=True, of_all=not causal)


@pytest.mark.parametrize(
    ("length", "keys", "share"),
    [(114, [114], 1), (512, [512], 1), (1024, [256, 512, 768, 1024], 5 / 8),
     (2048, [*range(256, 2049, 256)], 9 / 16), (1100, [*range(128, 1025, 128), 1100], None)],
)  # fmt: skip
def test_tiles_of_causal_attention_leave_out_keys_behind_all_their_queries(length, keys, share):
    tiling = attention_sizes.choose_tiling((2, length, 64), length, 1)
    of_all, of_causal = tiling.spans(causal=False), tiling.spans(causal=True)
    assert [span.keys for span in of_causal] == keys
    assert {span.keys for span in of_all} == {length} and len(of_all) <= 2
    if share:
        assert tiling.scores(causal=True) == share * length**2
    for spans in (of_all, of_causal):
        tiles = [i for span in spans for i in range(span.first, span.first + span.tiles)]
        assert tiles == list(range(tiling.tiles))


def test_a_bias_shorter_than_the_keys_is_refused():
    (q, k, v, bias), segments, _ = _case(2, 130, 130, 1, 64)
    options = {"num_heads": 1, "causal": False}
    with pytest.raises(ValueError, match="width 256 is too short for 130 keys"):
        fused_attention(q, k, v, bias[:, 128:-128], *segments, **options, interpret=True)
    with pytest.raises(ValueError, match="width 256 is too short for 130 x 130"):
        dot_product_attention(q, k, v, bias[:, 128:-128], *segments, **options)


def test_a_query_that_sees_nothing_gets_the_mean_value_and_moves_no_score():
    (q, k, v, bias), _, _ = _case(1, 8, 8, 1, 64)
    segments = np.array([[1, 1, 1, 1, 1, 0, 0, 0]], np.int32)
    attend = functools.partial(fused_attention, num_heads=1, causal=False, interpret=True)
    out = attend(q, k, v, bias, segments, segments)
    np.testing.assert_allclose(out[0, 5:], np.tile(v[0].mean(0), (3, 1)), atol=1e-6)

    def of_padding(q, k, v, bias):
        return attend(q, k, v, bias, segments, segments)[0, 5:].sum()

    gradients = jax.grad(of_padding, argnums=(0, 1, 3))(q, k, v, bias)
    assert all(not np.any(g) for g in gradients)


def test_each_device_attends_for_its_rows_and_heads():
    """The same numbers and gradients as without a mesh, and nothing is gathered for it."""
    arrays, segments, cotangent = _case(8, 12, 12, 4, 64)
    options = {"num_heads": 4, "causal": True}
    expected = _value_and_gradients(
        lambda *a: dot_product_attention(*a, *segments, **options), arrays, cotangent
    )
    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):
        rows, heads, both = P(BATCH), P(MODEL), P(BATCH, None, MODEL)
        placed = [jax.device_put(x, s) for x, s in zip(arrays, [both] * 3 + [heads], strict=True)]
        segments = [jax.device_put(x, rows) for x in segments]

        def run(arrays, segments, cotangent):
            attend = on_mesh(functools.partial(fused_attention, interpret=True))
            value, pullback = jax.vjp(lambda *a: attend(*a, *segments, **options), *arrays)
            return value, *pullback(cotangent)

        inputs = placed, segments, jax.device_put(cotangent, both)
        compiled = jax.jit(run).lower(*inputs).compile()
        got = compiled(*inputs)
    assert "all-gather" not in compiled.as_text()
    for a, b in zip(got, expected, strict=True):
        # The bias's gradient is a sum of many terms, up to 8 here: its rounding is relative.
        np.testing.assert_allclose(a, b, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("length", "size", "has_bias", "needed"),
    [
        (1024, 64, False, 6.78),
        (2048, 64, True, 17.84),
        (3072, 64, False, 26.83),
        (4096, 64, False, 36.31),
        (4096, 64, True, 54.05),
        (4096, 128, False, 27.14),
        (4096, 128, True, 35.08),
    ],
)
def test_long_rows_get_the_memory_that_the_compiler_needs(length, size, has_bias, needed):
    """MiB of VMEM that it names where it gets less, for the backward kernel on a v5p."""
    tiling = attention_sizes.choose_tiling((8, length, 12 * size), length, 12)
    assert needed * 2**20 <= tiling.vmem_bytes(2, has_bias) < 1.9 * needed * 2**20
