"""Stacks with several kinds of blocks, against one layer after the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from switch_jax.config import MeshConfig, ModelConfig
from switch_jax.model import bind, init_parameters
from switch_jax.model.stack import Layer
from switch_jax.moe import tokens_of
from switch_jax.partitioning.mesh import make_mesh

B, L = 8, 8
# By layout: where the parameters of each layer of the encoder are, and whether it has experts.
ENCODERS = {
    "bottom": [("blocks", 0, True), ("blocks", 1, True), ("blocks_1", 0, False)],
    "middle": [("blocks", 0, False), ("blocks_1", 0, True), ("blocks_2", 0, False)],
    "top": [("blocks", 0, False), ("blocks_1", 0, True), ("blocks_1", 1, True)],
}


def model_of(layout):
    """The decoder has no experts."""
    return ModelConfig(
        num_embeddings=32, embed_dim=16, mlp_dim=32, head_dim=8, num_heads=2, num_encoder_layers=3,
        num_decoder_layers=2, num_experts=4, group_size=8, activation_dtype="float32",
        num_encoder_sparse_layers=sum(sparse for *_, sparse in ENCODERS[layout]),
        num_decoder_sparse_layers=0, encoder_sparse_layout=layout,
    )  # fmt: skip


def inputs():
    rng = np.random.default_rng(0)
    tokens = rng.integers(1, 32, (B, L))
    return tokens, (np.arange(L) < rng.integers(2, L + 1, (B, 1))).astype(np.int32)


def layer_by_layer(model, layout, parameters, tokens, segments, key):
    """The encoder in training: its output, and the load of each router."""
    transformer = bind(model, parameters)
    (x,) = transformer.token_embedding(tokens)
    of_stack = tokens_of(tokens, segments, jax.random.split(key, 3)[2]).replace(
        position_bias=transformer.encoder.relative_position_bias(L)
    )
    loads = []
    for number, (blocks, index, sparse) in enumerate(ENCODERS[layout]):
        layer = Layer(model, False, sparse, nnx.Rngs(0))
        of_layer = jax.tree.map(lambda p, i=index: p[i], parameters["encoder"][blocks]["layer_0"])
        nnx.update(layer, of_layer)
        x, output = layer(x, of_stack.replace(layer=number))
        assert bool(output.statistics) == sparse
        loads += [its.load for its in output.statistics]
    return transformer.encoder.final_norm(x), jnp.stack(loads)


@pytest.mark.parametrize("layout", ENCODERS)
def test_the_stack_is_its_layers_in_their_order(layout):
    model, (tokens, segments), key = model_of(layout), inputs(), jax.random.key(1)
    parameters = jax.tree.map(lambda x: 1.5 * x, init_parameters(model, jax.random.key(0)))
    by_hand = jax.jit(functools.partial(layer_by_layer, model, layout))
    expected, loads = by_hand(parameters, tokens, segments, key)
    assert {name for name in parameters["encoder"] if "blocks" in name} == {
        name for name, *_ in ENCODERS[layout]
    }

    def stack(parameters):
        transformer = bind(model, parameters)
        (x,) = transformer.token_embedding(tokens)
        return transformer.encoder(x, tokens_of(tokens, segments, key))[:2]

    arrays = jax.device_get(parameters)
    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):
        found, statistics = jax.device_get(jax.jit(stack)(arrays))
    real = segments != 0
    np.testing.assert_allclose(found[real], np.asarray(expected)[real], atol=1e-5)
    np.testing.assert_allclose(statistics.load, loads, atol=1e-6)
    assert len({tuple(load) for load in statistics.load.round(4)}) == len(loads)


def test_a_layer_starts_as_that_of_the_dense_model_of_the_seed():
    key = jax.random.key(3)
    model = model_of("top")
    dense = ModelConfig(
        32, 16, 32, 8, 2, 3, 2, activation_dtype="float32", scale=model.scale
    )  # fmt: skip
    sparse, dense = init_parameters(model, key), init_parameters(dense, key)
    for number, (blocks, index, _) in enumerate(ENCODERS["top"]):
        np.testing.assert_array_equal(
            sparse["encoder"][blocks]["layer_0"]["self_attention"]["query"][index],
            dense["encoder"]["blocks"]["layer_0"]["self_attention"]["query"][number],
        )
    jax.tree.map(np.testing.assert_array_equal, sparse["decoder"], dense["decoder"])
