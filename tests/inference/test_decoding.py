"""Beams with a cache, against the model on complete sequences."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.inference import DecodingConfig, make_decode, trained_model
from switch_jax.model import bind, init_parameters
from switch_jax.utils.errors import UserError
from tests.trainer.helpers import tiny_model

B, M, L, EOS = 8, 5, 6, 1
# The capacity is enough for all tokens; a group is one row in both stacks.
SWITCH = tiny_model(num_embeddings=8, group_size=M, eval_expert_capacity_factor=4.0)
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
    for beam in range(3):
        words = decoded.tokens[:, beam]
        length = np.where((words == EOS).any(1), (words == EOS).argmax(1) + 1, L)
        all_ = log_probs(SWITCH, inputs, words)
        chosen = np.take_along_axis(all_, words[..., None], axis=2)[..., 0]
        total = np.sum(chosen * (np.arange(L) < length[:, None]), axis=1)
        np.testing.assert_allclose(
            decoded.scores[:, beam], total / ((5 + length) / 6) ** 0.6, rtol=1e-4
        )


@pytest.mark.parametrize(
    "values, message",
    [
        ({"max_tokens": 0}, "max_tokens = 0: it must be at least 1"),
        ({"num_beams": "4"}, "num_beams = '4': it must be a whole number"),
        ({"length_penalty": 1e9}, "length_penalty = 1000000000.0: it must be at most 5"),
        ({"top_p": 1.5, "temperature": 1.0}, "top_p = 1.5: it must be at most 1, or None"),
        ({"num_beams": 2, "temperature": 1.0}, "temperature = 1.0 does not go with NUM_BEAMS = 2"),
        ({"top_k": 3}, "top_k = 3 does not go with TEMPERATURE = 0.0"),
        ({"top_p": 0.5}, "top_p = 0.5 does not go with TEMPERATURE = 0.0"),
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
