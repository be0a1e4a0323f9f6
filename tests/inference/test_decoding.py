"""Decoding and scoring with a cache, against the model on complete sequences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from switch_jax.config import DataConfig, MeshConfig
from switch_jax.inference import DecodingConfig, make_decode, make_score, trained_model
from switch_jax.model import bind, init_parameters
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.utils.errors import UserError
from tests.inference.models import DENSE

B, M, L, EOS = 8, 5, 6, 1
# The capacity is enough for all tokens; a group is one row in both stacks.
SWITCH = dataclasses.replace(DENSE, num_experts=4, group_size=M, eval_expert_capacity_factor=4.0)
EXAMPLE_IDS = np.arange(B)


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(3)
    segments = (np.arange(M) < rng.integers(2, M + 1, (B, 1))).astype(np.int32)
    return rng.integers(1, 8, (B, M)) * segments, segments


@functools.cache
def parameters(model):
    return jax.tree.map(lambda x: 1.5 * x, init_parameters(model, jax.random.key(1)))


@functools.partial(jax.jit, static_argnums=0)
def apply(model, parameters, tokens, segments, before):
    # One large group: the group size does not divide both lengths.
    model = dataclasses.replace(model, group_size=10**6)
    return bind(model, parameters)(tokens, before, segments, jnp.ones_like(before)).logits


def log_probs(model, inputs, words):
    """[B, L, V] of each of the words [B, L], given those before it; no cache."""
    before = np.pad(words, ((0, 0), (1, 0)))[:, :-1]
    return np.array(jax.nn.log_softmax(apply(model, parameters(model), *inputs, before)))


def greedy_without_cache(model, inputs):
    words, done = np.zeros((B, L), int), np.zeros(B, bool)
    scores = np.zeros(B)
    for i in range(L):
        last = log_probs(model, inputs, words)[:, i]
        words[:, i] = np.where(done, 0, last.argmax(-1))
        scores += np.where(done, 0, last.max(-1))
        done |= words[:, i] == EOS
    return words, scores


@pytest.mark.parametrize(
    "model",
    [pytest.param(DENSE, marks=pytest.mark.slow), SWITCH],
    ids=["dense", "switch"],
)
def test_greedy_equals_greedy_without_cache_on_every_mesh(model, inputs):
    words, scores = greedy_without_cache(model, inputs)
    assert len({tuple(row) for row in words}) > 2, "rows should differ"
    decode = make_decode(model, DecodingConfig(L))
    for mesh in (1, 1, 1), (2, 2, 2):
        devices = jax.devices()[: int(np.prod(mesh))]
        with jax.set_mesh(make_mesh(MeshConfig(*mesh), devices)):
            decoded = jax.device_get(jax.jit(decode)(parameters(model), *inputs, EXAMPLE_IDS))
        assert decoded.tokens[:, 0].tolist() == words.tolist()
        np.testing.assert_allclose(decoded.scores[:, 0], scores, atol=1e-4)


def test_weights_are_cast_once_and_not_for_each_token(inputs):
    """The loop over tokens takes matrices in bfloat16; only router and norms are float32."""
    model = dataclasses.replace(SWITCH, activation_dtype="bfloat16")
    decode = make_decode(model, DecodingConfig(L))
    jaxpr = jax.make_jaxpr(decode)(parameters(model), *inputs, EXAMPLE_IDS)
    (loop,) = (eqn for eqn in jaxpr.eqns if eqn.primitive.name == "while")
    wide = {v.aval.shape for v in loop.invars if v.aval.dtype == np.float32 and v.aval.ndim == 3}
    assert wide == {(2 // model.sparse_step, model.embed_dim, model.num_experts)}, "the router's"


def test_beam_search_scores_equal_those_of_the_model(inputs):
    decode = make_decode(SWITCH, DecodingConfig(L, num_beams=3, length_penalty=0.6))
    decoded = jax.device_get(jax.jit(decode)(parameters(SWITCH), *inputs, EXAMPLE_IDS))
    greedy_scores = greedy_without_cache(SWITCH, inputs)[1]
    for beam in range(3):
        words = decoded.tokens[:, beam]
        length = np.where((words == EOS).any(1), (words == EOS).argmax(1) + 1, L)
        all_ = log_probs(SWITCH, inputs, words)
        chosen = np.take_along_axis(all_, words[..., None], axis=2)[..., 0]
        total = np.sum(chosen * (np.arange(L) < length[:, None]), axis=1)
        np.testing.assert_allclose(
            decoded.scores[:, beam], total / ((5 + length) / 6) ** 0.6, rtol=1e-4
        )
        if beam == 0:
            assert (total > greedy_scores + 1e-3).any(), "some sequence should be better"


def test_scores_are_sums_over_the_targets(inputs):
    rng = np.random.default_rng(4)
    words = rng.integers(1, 8, (B, L))
    length = rng.integers(1, L + 1, B)
    weights = (np.arange(L) < length[:, None]).astype(np.float32)
    batch = {
        "encoder_input_tokens": inputs[0],
        "encoder_segment_ids": inputs[1],
        "decoder_input_tokens": np.pad(words, ((0, 0), (1, 0)))[:, :-1],
        "decoder_target_tokens": words,
        "decoder_loss_weights": weights,
        "decoder_segment_ids": weights.astype(np.int32),
    }
    scores = jax.jit(make_score(DENSE))(parameters(DENSE), batch)
    all_ = log_probs(DENSE, inputs, words)
    expected = [sum(all_[b, i, words[b, i]] for i in range(length[b])) for b in range(B)]
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"max_tokens": 0}, "max_tokens = 0: it must be at least 1"),
        ({"num_beams": "4"}, "num_beams = '4': it must be a whole number"),
        ({"temperature": 1e-40}, "temperature = 1e-40: below 0.001 .* overflow; write 0, which"),
        ({"length_penalty": 1e9}, "length_penalty = 1000000000.0: it must be at most 5"),
        ({"top_p": 1.5, "temperature": 1.0}, "top_p = 1.5: it must be at most 1, or None"),
        (
            {"num_beams": 2, "temperature": 1.0},
            "num_beams = 2 and temperature = 1.0: a beam search",
        ),
        ({"top_k": 3}, "at temperature 0 there is none: set a temperature"),
    ],
)
def test_values_that_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        DecodingConfig(**{"max_tokens": 4, **values})


def test_a_vocabulary_without_an_eos_ends_no_sequence(monkeypatch):
    vocabularies = {"targets": seqio.PassThroughVocabulary(10)}
    monkeypatch.setattr(trained_model, "vocabularies", lambda data: vocabularies)
    data = DataConfig("none", {"inputs": 4, "targets": L})
    assert trained_model.decoding_config(data).eos_id == -1
