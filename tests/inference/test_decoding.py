"""How sequences are decoded: what of it is compiled, and what is refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.inference import DecodingConfig, make_decode, trained_model
from switch_jax.model import abstract_parameters
from switch_jax.utils.errors import UserError
from tests.trainer.helpers import tiny_model

B, M, L = 8, 5, 6


def test_weights_are_cast_once_and_not_for_each_token():
    """The loop over tokens takes matrices in bfloat16; only router and norms are float32."""
    model = dataclasses.replace(tiny_model(group_size=M), activation_dtype="bfloat16")
    decode = make_decode(model, DecodingConfig(L))
    tokens = jnp.ones((B, M), jnp.int32)
    encoded = {"encoder": tokens}
    jaxpr = jax.make_jaxpr(decode)(abstract_parameters(model), encoded, encoded, jnp.arange(B))
    (loop,) = (eqn for eqn in jaxpr.eqns if eqn.primitive.name == "while")
    wide = {v.aval.shape for v in loop.invars if v.aval.dtype == np.float32 and v.aval.ndim == 3}
    assert wide == {(2 // model.sparse_step, model.embed_dim, model.num_experts)}, "the router's"


@pytest.mark.parametrize(
    "values, message",
    [
        ({"length_penalty": 1e9}, "length_penalty = 1000000000.0: it must be at most 5"),
        ({"top_p": 1.5, "temperature": 1.0}, "top_p = 1.5: it must be at most 1, or None"),
        ({"top_p": 0.5}, "top_p = 0.5 does not go with temperature = 0.0"),
        ({"num_beams": 2, "temperature": 1.0}, "temperature = 1.0 does not go with num_beams = 2"),
        ({"top_k": 3}, "top_k = 3 does not go with temperature = 0.0"),
    ],
)
def test_values_that_are_refused(values, message):
    with pytest.raises(UserError, match=message):
        DecodingConfig(**{"max_new_tokens": 4, **values})


def test_a_vocabulary_without_an_eos_ends_no_sequence(monkeypatch):
    vocabularies = {"targets": seqio.PassThroughVocabulary(10)}
    monkeypatch.setattr(trained_model, "vocabularies", lambda data: vocabularies)
    data = DataConfig("none", {"inputs": 4, "targets": L})
    assert trained_model.decoding_config(data).eos_id == -1


@pytest.mark.parametrize(("length", "most"), [(1, 1), (2, 1), (9, 4)])
def test_prompts_without_a_length_leave_half_of_a_row_by_default(length, most):
    data = DataConfig("bible_full_lm", {"targets": length})
    assert trained_model.decoding_config(data).max_new_tokens == most
    with pytest.raises(UserError, match=f"max_new_tokens = {length} leaves no room for a prompt"):
        trained_model.decoding_config(data, max_new_tokens=length)
