"""cuDNN's attention on GPUs that are not there: its arguments, and the program it stands in."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src.cudnn import fused_attention_stablehlo

from switch_jax.config import MeshConfig
from switch_jax.model import abstract_parameters, bind, fused_attention, model_inputs
from switch_jax.model.dot_product_attention import dot_product_attention, segment_mask
from switch_jax.model.fused_attention import cudnn_attention, fused_kernel
from switch_jax.partitioning.mesh import make_mesh
from tests.trainer.helpers import random_batch, tiny_model

HEADS, SIZE = 4, 8


def reference(q, k, v, bias, query_segments, key_segments, causal):
    """Softmax attention in NumPy, float64, a pair at a time."""
    q, k, v = (np.asarray(x, np.float64).reshape(*x.shape[:2], HEADS, SIZE) for x in (q, k, v))
    batch, length, memory = *q.shape[:2], k.shape[1]
    y = np.zeros_like(q)
    for b, h, i in np.ndindex(batch, HEADS, length):
        scores = np.full(memory, -np.inf)
        for j in range(memory):
            if query_segments[b, i] == key_segments[b, j] != 0 and not (causal and j > i):
                scores[j] = q[b, i, h] @ k[b, j, h]
                if bias is not None:
                    scores[j] += bias[h, bias.shape[1] // 2 + i - j]
        if np.isinf(scores).all():
            scores[:] = 0  # it sees none: the mean of all values
        weights = np.exp(scores - scores.max())
        y[b, i, h] = weights / weights.sum() @ v[b, :, h]
    return y.reshape(batch, length, -1)


def _arrays(length, memory, with_bias):
    rng = np.random.default_rng(length)
    q, k, v = (rng.normal(size=(3, n, HEADS * SIZE)) for n in (length, memory, memory))
    bias = rng.normal(size=(HEADS, 2 * 16)) if with_bias else None
    segments = [np.sort(rng.integers(0, 3, (3, n)))[:, ::-1] for n in (length, memory)]
    segments[0][0], segments[1][0] = 1, 2  # no query of the first row sees a key
    return (q, k, v, bias), segments if length != memory else [segments[0]] * 2


CASES = [(12, 12, False, True), (8, 8, True, True), (6, 14, False, False)]


@pytest.mark.parametrize("length, memory, causal, with_bias", CASES)
def test_weighted_sums_are_those_of_t5_and_gradients_those_of_xlas_attention(
    length, memory, causal, with_bias
):
    """With what XLA makes of the same call, in float32, in the place of cuDNN.

    Nothing depends on the output of queries that see no key, so their cotangent is zero.
    """
    arrays, segments = _arrays(length, memory, with_bias)
    wanted = reference(*arrays, *segments, causal)
    arrays = [None if x is None else jnp.asarray(x, jnp.float32) for x in arrays]
    segments = [jnp.asarray(x) for x in segments]
    sees = segment_mask(*segments)
    if causal:
        sees &= np.tri(length, dtype=bool)
    cotangent = np.random.default_rng(1).normal(size=arrays[0].shape) * sees.any(-1)[..., None]

    @functools.partial(jax.jit, static_argnums=0)
    def value_and_gradients(attend, arrays):
        attend = functools.partial(attend, num_heads=HEADS, causal=causal)
        y, pullback = jax.vjp(lambda *a: attend(*a, *segments), *arrays)
        return y, pullback(jnp.asarray(cotangent, jnp.float32))

    by_xla = functools.partial(cudnn_attention, implementation="xla")
    y, got = value_and_gradients(by_xla, arrays)
    np.testing.assert_allclose(y, wanted, atol=2e-5)
    _, expected = value_and_gradients(dot_product_attention, arrays)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert np.abs(b).max() > 0.1
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_cudnn_gets_grouped_heads_as_they_are():
    """By what XLA makes of the same call."""
    (q, k, v, _), segments = _arrays(8, 8, with_bias=False)
    few = [x[..., : 2 * SIZE] for x in (k, v)]  # two heads
    all_of_them = [np.repeat(x.reshape(3, 8, 2, SIZE), 2, axis=2).reshape(k.shape) for x in few]
    wanted = reference(q, *all_of_them, None, *segments, causal=True)
    attend = functools.partial(cudnn_attention, num_heads=HEADS, causal=True, implementation="xla")
    y = attend(*(jnp.asarray(x, jnp.float32) for x in (q, *few)), None, *map(jnp.asarray, segments))
    np.testing.assert_allclose(y, wanted, atol=2e-5)


def test_a_query_that_sees_no_key_passes_no_gradient():
    """Whatever its cotangent is: cuDNN would give NaN for one whose keys are all masked."""
    (q, k, v, bias), segments = _arrays(8, 8, with_bias=True)
    segments = jnp.array([[1, 1, 2, 2, 2, 2, 0, 0]] * 3)

    def of_padding(q, k, bias):
        attend = functools.partial(cudnn_attention, num_heads=HEADS, causal=True)
        return attend(q, k, v, bias, segments, segments, implementation="xla")[:, 6:].sum()

    gradients = jax.grad(of_padding, argnums=(0, 1, 2))(*map(jnp.asarray, (q, k, bias)))
    assert not any(np.any(g) for g in gradients)


@pytest.fixture
def gpu(monkeypatch):
    """The mesh's devices are taken for GPUs with a cuDNN that is new enough."""
    monkeypatch.setattr(fused_attention, "device_kind", lambda: "NVIDIA H100 80GB HBM3")
    monkeypatch.setattr(fused_attention_stablehlo, "check_cudnn_version", lambda: 91801)


CUDNN = {"gpu_attention": "cudnn", "activation_dtype": "bfloat16", "head_dim": 8}


@pytest.mark.parametrize(
    "changes, dtype, lengths",
    [
        ({"gpu_attention": "xla"}, "bfloat16", (8, 8)),
        ({"activation_dtype": "float32"}, "float32", (8, 8)),
        ({"head_dim": 12}, "bfloat16", (8, 8)),
        ({"head_dim": 256}, "bfloat16", (8, 8)),
        ({}, "bfloat16", (7, 8)),
        ({}, "bfloat16", (8, 7)),
        ({}, "bfloat16", (8, 64)),
        ({}, "bfloat16", (8, 320)),
    ],
)
def test_what_cudnn_does_not_know_is_left_to_xla(gpu, changes, dtype, lengths):
    def chosen(changes, dtype, lengths):
        model = tiny_model(**{**CUDNN, **changes})
        q, k = (jnp.zeros((2, n, model.num_heads * model.head_dim), dtype) for n in lengths)
        return fused_kernel(model, q, k, has_bias=True)

    assert chosen({}, "bfloat16", (8, 8)) is cudnn_attention
    assert chosen(changes, dtype, lengths) is None


def _calls(**changes):
    """How often the gradient, lowered for CUDA, calls cuDNN forward and backward."""
    layers = {"num_encoder_layers": 1, "num_decoder_layers": 1, "num_experts": 0}
    model = tiny_model(**CUDNN, **layers, **changes)
    inputs = model_inputs(model, random_batch(8))

    def loss(parameters):
        return bind(model, parameters)(*inputs, key=jax.random.key(0)).logits.sum()

    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):
        traced = jax.jit(jax.grad(loss)).trace(abstract_parameters(model))
        program = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = [line for line in program.splitlines() if "@__cudnn$fmhaScaleBiasSoftmax" in line]
    backward = sum("Backward" in line for line in calls)
    return len(calls) - backward, backward


def test_the_gradient_calls_cudnn_for_each_attention_without_dropout(gpu):
    """Encoder, decoder and cross-attention."""
    assert _calls() == (3, 3)
    assert _calls(dropout_rate=0.1) == (0, 0)
    rotary = {"positions": "rotary", "qk_norm": True}
    assert _calls(**rotary, num_heads=4, num_key_value_heads=2) == (3, 3)
    # Two devices would share the head of keys and values.
    assert _calls(**rotary, num_heads=4, num_key_value_heads=1) == (0, 0)
