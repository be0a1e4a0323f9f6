"""Unstacked parameters, each layer's arrays by themselves, as a training step takes them on a CPU.

Elsewhere the layers of a stack are one array with a leading axis 'layers'. A CPU would copy each
layer's weights out of it, and the gradients into one: 7 % of a step with 32 experts, 19 % with 128
(docs/design.md). Here a list of layers takes its place. Each layer keeps a leading axis, of one,
with the same name. `train_step.state` goes from one form to the other between steps; within a step
the model gets stacks, which the compiler sees through.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.config import ModelConfig
from switch_jax.partitioning.devices import platform
from switch_jax.partitioning.rules import is_axes


def are_unstacked(config: ModelConfig) -> bool:
    """Whether a training step on the mesh set by `jax.set_mesh` takes unstacked layers."""
    return platform() == "cpu" and not config.scan_layers


def unstacked_shapes(axes: Any, parameters: Any) -> Any:
    """The shapes of parameters, with these logical axes, when their layers are unstacked."""

    def of_one(names: tuple[str, ...], parameter: Any) -> Any:
        is_stack = names[0] == "layers"
        return _cut(parameter, parameter.shape[0]) if is_stack else parameter

    return jax.tree.map(of_one, axes, parameters, is_leaf=is_axes)


def unstack_layers(shapes: Any, tree: Any) -> Any:
    """Each stack of `tree`, arrays or shapes, as a list of layers where `shapes` has such a list.

    An array is deleted once its layers are there: there may be no room for all of them twice. A
    stack of one layer is its layer, and stays.
    """

    def of_one(layers: Any, value: Any) -> Any:
        if not isinstance(layers, list):
            return value
        number = len(layers)
        stacks, structure = jax.tree.flatten(value)  # a parameter may have several moments
        cut = [_cut(stack, number) for stack in stacks]
        if number > 1:
            _delete(stacks)
        return [jax.tree.unflatten(structure, [c[i] for c in cut]) for i in range(number)]

    return jax.tree.map(of_one, shapes, tree, is_leaf=_is_list)


def stack_layers(tree: Any, *, free: bool = False) -> Any:
    """Each list of layers as one stack; a tree without lists is returned as it is.

    `free` deletes the layers once their stack is there. A single layer is its stack, and stays.
    """

    def of_one(layers: Any) -> Any:
        if not isinstance(layers, list):
            return layers
        if len(layers) == 1:
            return layers[0]
        stack = jax.tree.map(lambda *arrays: jnp.concatenate(arrays), *layers)
        if free:
            _delete(layers)
        return stack

    return jax.tree.map(of_one, tree, is_leaf=_is_list)


def has_lists(tree: Any) -> bool:
    """Whether the layers of `tree` are unstacked."""
    return any(map(_is_list, jax.tree.leaves(tree, is_leaf=_is_list)))


def _cut(stack: Any, number: int) -> list[Any]:
    """[N, ...] -> N times [1, ...], laid out over the mesh as the stack."""
    if isinstance(stack, jax.ShapeDtypeStruct):
        shape = (1, *stack.shape[1:])
        return [jax.ShapeDtypeStruct(shape, stack.dtype, sharding=stack.sharding)] * number
    if number == 1:
        return [stack]
    layers = [lax.dynamic_slice_in_dim(stack, i, 1) for i in range(number)]
    return [jax.device_put(layer, stack.sharding) for layer in layers]


def _delete(arrays: Any) -> None:
    for array in jax.tree.leaves(arrays):
        if not isinstance(array, jax.ShapeDtypeStruct):
            array.delete()


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
