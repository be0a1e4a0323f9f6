"""A stack with several kinds of blocks, against one layer after the other."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from switch_jax.config import MeshConfig
from switch_jax.model import bind, init_parameters
from switch_jax.model.layer_context import LayerContext
from switch_jax.model.stack import Layer
from switch_jax.moe import LayerKey, Tokens
from switch_jax.partitioning.mesh import make_mesh
from tests.trainer.helpers import tiny_model

B, L = 8, 8
# The encoder's layers: where the parameters of each are, and whether it has experts.
LAYERS = [
    ("blocks", 0, False), ("blocks_1", 0, True), ("blocks_1", 1, True), ("blocks_2", 0, False),
]  # fmt: skip
MODEL = tiny_model(
    group_size=L, num_encoder_layers=4, num_encoder_sparse_layers=2, num_decoder_sparse_layers=0,
    encoder_sparse_layout="middle",
)  # fmt: skip
STACK = MODEL.stacks[0]


@jax.jit
def layer_by_layer(parameters, tokens, segments, key):
    """The encoder in training: its output, and the load of each router."""
    transformer = bind(MODEL, parameters)
    (x,) = transformer.token_embedding(tokens)
    position_bias = transformer.encoder.relative_position_bias(L)
    stack_key = jax.random.split(key, 3)[2]
    loads = []
    for number, (blocks, index, sparse) in enumerate(LAYERS):
        layer = nnx.eval_shape(lambda sparse=sparse: Layer(MODEL, STACK, sparse, nnx.Rngs(0)))
        of_layer = jax.tree.map(lambda p, i=index: p[i], parameters["encoder"][blocks]["layer_0"])
        nnx.update(layer, of_layer)
        context = LayerContext(LayerKey(stack_key, number), position_bias=position_bias)
        x, output = layer(x, Tokens(tokens, segments), context)
        assert bool(output.routers) == sparse
        loads += [router.statistics.load for router in output.routers]
    return transformer.encoder.final_norm(x), jnp.stack(loads)


def test_the_stack_is_its_layers_in_their_order():
    rng, key = np.random.default_rng(0), jax.random.key(1)
    tokens = rng.integers(1, 64, (B, L))
    segments = (np.arange(L) < rng.integers(2, L + 1, (B, 1))).astype(np.int32)
    parameters = jax.tree.map(lambda x: 1.5 * x, init_parameters(MODEL, jax.random.key(0)))
    expected, loads = layer_by_layer(parameters, tokens, segments, key)

    def stack(parameters):
        transformer = bind(MODEL, parameters)
        (x,) = transformer.token_embedding(tokens)
        return transformer.encoder(x, Tokens(tokens, segments), key=key)[:2]

    arrays = jax.device_get(parameters)
    with jax.set_mesh(make_mesh(MeshConfig(2, 2, 2))):
        found, (statistics, _) = jax.device_get(jax.jit(stack)(arrays))
    real = segments != 0
    np.testing.assert_allclose(found[real], np.asarray(expected)[real], atol=1e-5)
    np.testing.assert_allclose(statistics.load, loads, atol=1e-6)
    assert len({tuple(load) for load in statistics.load.round(4)}) == len(loads)


def test_a_layer_starts_as_that_of_the_dense_model_of_the_seed():
    dense = tiny_model(num_encoder_layers=4, num_experts=0)
    sparse, dense = (init_parameters(model, jax.random.key(3)) for model in (MODEL, dense))
    for number, (blocks, index, _) in enumerate(LAYERS):
        np.testing.assert_array_equal(
            sparse["encoder"][blocks]["layer_0"]["self_attention"]["query"][index],
            dense["encoder"]["blocks"]["layer_0"]["self_attention"]["query"][number],
        )
    jax.tree.map(np.testing.assert_array_equal, sparse["decoder"], dense["decoder"])
