import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.unstacked_layers import (
    are_unstacked,
    stack_layers,
    unstack_layers,
    unstacked_shapes,
)
from tests.trainer.helpers import tiny_model

AXES = {"scale": ("layers", "embed"), "table": ("vocab", "embed")}
SHAPES = {
    "scale": jax.ShapeDtypeStruct((3, 2), jnp.float32),
    "table": jax.ShapeDtypeStruct((4, 2), jnp.float32),
}


def _stacks():
    return {
        "scale": jnp.asarray([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]),
        "table": jnp.arange(8.0).reshape(4, 2),
    }


def test_each_layer_is_an_array_of_its_own():
    layers = unstack_layers(unstacked_shapes(AXES, SHAPES), _stacks())
    for layer, values in zip(layers["scale"], ([1, 2], [3, 4], [5, 6]), strict=True):
        np.testing.assert_array_equal(layer, [values])
    np.testing.assert_array_equal(layers["table"], _stacks()["table"])


def test_several_arrays_of_a_parameter_are_split_together():
    """As the moments of Adafactor, of which there are several for each parameter."""
    shapes = {"scale": [(SHAPES["scale"], None)] * 3}
    moments = {"scale": (_stacks()["scale"], None)}
    layers = unstack_layers(shapes, moments)["scale"]
    assert [layer[1] for layer in layers] == [None] * 3
    np.testing.assert_array_equal(layers[2][0], [[5.0, 6.0]])
    np.testing.assert_array_equal(stack_layers({"scale": layers})["scale"][0], _stacks()["scale"])


def test_the_memory_of_the_other_form_is_given_back():
    shapes, stacks = unstacked_shapes(AXES, SHAPES), _stacks()
    layers = unstack_layers(shapes, stacks)
    assert stacks["scale"].is_deleted() and not stacks["table"].is_deleted()
    whole = stack_layers(layers, free=True)
    assert all(layer.is_deleted() for layer in layers["scale"])
    np.testing.assert_array_equal(whole["scale"], _stacks()["scale"])
    assert not whole["table"].is_deleted()


def test_a_single_layer_is_its_stack_and_keeps_its_memory():
    stack = jnp.ones((1, 2))
    shapes = unstacked_shapes({"scale": ("layers", "embed")}, {"scale": stack})
    layers = unstack_layers(shapes, {"scale": stack})
    whole = stack_layers(layers, free=True)
    np.testing.assert_array_equal(whole["scale"], [[1.0, 1.0]])


def test_layers_lie_over_the_mesh_as_their_stack():
    mesh = make_mesh(MeshConfig(1, 4, 2))
    sharding = NamedSharding(mesh, PartitionSpec(None, "expert", "model"))
    stack = jax.device_put(jnp.arange(2 * 8 * 6.0).reshape(2, 8, 6), sharding)
    axes = {"wi": ("layers", "expert", "mlp")}
    shapes = {"wi": jax.ShapeDtypeStruct(stack.shape, stack.dtype, sharding=sharding)}
    described = unstacked_shapes(axes, shapes)
    layers = unstack_layers(described, {"wi": stack})
    for layer, description in zip(layers["wi"], described["wi"], strict=True):
        assert layer.sharding == description.sharding == sharding
        assert layer.sharding.shard_shape(layer.shape) == (1, 2, 3)
    values = np.arange(2 * 8 * 6.0).reshape(2, 8, 6)
    np.testing.assert_array_equal(stack_layers(layers)["wi"], values)


def test_a_cpu_takes_them_apart_where_they_are_not_scanned():
    assert are_unstacked(tiny_model(scan_layers=False))
    assert not are_unstacked(tiny_model(scan_layers=True))
