"""Token by token with a cache, against the whole sequence at once."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from switch_jax.config import MeshConfig, ModelConfig
from switch_jax.model import bind, init_parameters
from switch_jax.partitioning.mesh import make_mesh

B, M, L = 8, 7, 7
DENSE = ModelConfig(
    num_embeddings=32, embed_dim=16, mlp_dim=32, head_dim=8, num_heads=2, num_encoder_layers=2,
    num_decoder_layers=4, activation_dtype="float32", relative_position_max_distance=6,
    relative_position_buckets=8,
)  # fmt: skip
# Room for all tokens: decoding drops none.
SWITCH = dataclasses.replace(
    DENSE, num_experts=4, group_size=L, eval_expert_capacity_factor=4.0, activation="gated-gelu"
)
# Two experts a token, chosen with biases, and a shared one.
TWO_EXPERTS = dataclasses.replace(
    SWITCH, num_selected_experts=2, second_expert_policy="random", shared_expert_mlp_dim=16,
    load_balance="bias",
)  # fmt: skip
# Experts in self-attention too, and in the decoder in the first layer alone, so that it has two
# kinds of blocks; smaller weights, as products of them multiply what is rounded.
BOTH = dataclasses.replace(
    SWITCH, expert_sublayers="both", load_balance="bias", scale=0.5, decoder_sparse_layout="bottom",
    num_decoder_sparse_layers=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def batch():
    rng = np.random.default_rng(0)
    targets = rng.integers(1, 32, (B, L))
    return {
        "tokens": rng.integers(1, 32, (B, M)),
        "segments": (np.arange(M) < rng.integers(2, M + 1, (B, 1))).astype(np.int32),
        "inputs": np.pad(targets, ((0, 0), (1, 0)))[:, :-1],
    }


def parameters(model):
    """Larger than they begin, so that everything matters; biases are 0 then."""

    def larger(x):
        return jnp.where(x.any(), 1.5 * x, 0.3 * jnp.cos(jnp.arange(x.size).reshape(x.shape)))

    return jax.tree.map(larger, init_parameters(model, jax.random.key(0)))


def at_once(model, parameters, batch):
    ones = jnp.ones((B, L), jnp.int32)
    return bind(model, parameters)(batch["tokens"], batch["inputs"], batch["segments"], ones).logits


def step_by_step(model, parameters, batch):
    """Each row as two beams, of which the second has the words of the row before."""
    transformer = bind(model, parameters)
    memory = transformer.encode(batch["tokens"], batch["segments"])
    decoding = transformer.init_decoding(memory, batch["segments"], beams=2, length=L)

    def step(decoding, position_and_words):
        position, words = position_and_words
        tokens, valid = jnp.stack([words, jnp.roll(words, 1)], axis=1), jnp.ones((B, 2), bool)
        logits, decoding = transformer.decode_step(tokens, valid, position, decoding)
        return decoding, logits

    _, logits = jax.lax.scan(step, decoding, (jnp.arange(L), batch["inputs"].T))
    return jnp.moveaxis(logits, 0, 2)  # [B, beams, L, V]


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(DENSE, marks=pytest.mark.slow),
        pytest.param(SWITCH, marks=pytest.mark.slow),
        pytest.param(TWO_EXPERTS, marks=pytest.mark.slow),
        BOTH,
    ],
    ids=["dense", "switch", "two", "both"],
)
@pytest.mark.parametrize("mesh", [pytest.param((1, 1, 1), marks=pytest.mark.slow), (2, 2, 2)])
def test_the_same_logits_as_at_once_on_every_mesh(mesh, model, batch):
    arrays = jax.device_get(parameters(model))
    whole = jax.jit(functools.partial(at_once, model))
    expected = whole(arrays, batch)
    expected_of_second = whole(arrays, {**batch, "inputs": np.roll(batch["inputs"], 1, axis=0)})
    assert np.abs(expected).max() > 2
    devices = jax.devices()[: int(np.prod(mesh))]
    with jax.set_mesh(make_mesh(MeshConfig(*mesh), devices)):
        stepped = jax.jit(functools.partial(step_by_step, model))
        found = jax.device_get(stepped(arrays, batch))
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-4)
    np.testing.assert_allclose(found[:, 1], expected_of_second, atol=1e-4)


def test_beams_change_places():
    transformer = bind(DENSE, parameters(DENSE))
    memory, segments = jnp.ones((2, M, DENSE.embed_dim)), jnp.ones((2, M), jnp.int32)
    decoding = transformer.init_decoding(memory, segments, beams=3, length=L)
    numbers = jnp.arange(2 * 3, dtype=jnp.float32).reshape(1, 2, 3, 1, 1)
    cache = jax.tree.map(lambda x: x + numbers, decoding.cache)
    moved = transformer.reorder(
        decoding._replace(cache=cache), jnp.array([[2, 2, 0], [0, 1, 1]])
    ).cache
    for array in jax.tree.leaves(moved):
        assert array[:, :, :, 0, 0].tolist() == [[[2, 2, 0], [3, 4, 4]]] * 4
