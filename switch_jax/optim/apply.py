"""An optimiser as the training step uses it: one that applies its updates itself."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from switch_jax.kernels.by_platform import add_update

NOTHING = -0.0  # x + NOTHING is x, bit for bit; -0.0 + 0.0 is not -0.0


class Updated(NamedTuple):
    """A parameter's new value after its update; or, for all of them, a tree of each.

    `square_sum` is its sum of squares, and `update_square_sum` that of what was added, to rounding;
    float32 scalars.
    """

    parameter: Any
    square_sum: Any
    update_square_sum: Any


class Optimizer(NamedTuple):
    """What updates the parameters.

    `init` makes the state of parameters. `step` takes gradients, state, parameters and `skip`, and
    gives `Updated` of all parameters and the new state; where the bool `skip` is true, both stay as
    they are, even if gradients are not finite.
    """

    init: Callable[[Any], Any]
    step: Callable[[Any, Any, Any, jax.Array | bool], tuple[Updated, Any]]


def with_step(transformation: optax.GradientTransformation) -> Optimizer:
    """An optimiser whose step adds the updates to the parameters once all are known."""

    def step(
        gradients: Any, state: Any, parameters: Any, skip: jax.Array | bool
    ) -> tuple[Updated, Any]:
        updates, new = transformation.update(gradients, state, parameters)
        updates = jax.tree.map(lambda u: jnp.where(skip, NOTHING, u), updates)
        new = jax.tree.map(lambda o, n: jnp.where(skip, o, n), state, new)
        return Updated(*by_field(jax.tree.map(add, parameters, updates))), new

    return Optimizer(transformation.init, step)


def add(parameter: jax.Array, update: jax.Array) -> Updated:
    """A parameter after its update."""
    new, added = add_update(parameter, update)
    return Updated(new, sum_of_squares(new), sum_of_squares(added))


def sum_of_squares(array: jax.Array) -> jax.Array:
    """A float32 scalar."""
    return jnp.sum(jnp.square(array.astype(jnp.float32)))


def by_field(mapped: Any) -> tuple:
    """A tree of tuples of the same length as one tree for each of their elements."""
    leaves, structure = jax.tree.flatten(mapped, is_leaf=lambda x: isinstance(x, tuple))
    return tuple(jax.tree.unflatten(structure, field) for field in zip(*leaves, strict=True))
