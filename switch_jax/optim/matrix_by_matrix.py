"""Updates of stacked matrices on a CPU: one after another, each while it is in the cache.

An update reads the gradient and the parameter several times. Over a stack that is larger than the
cache, each of these is a pass over the memory; over one matrix, only the first is.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.optim.apply import Updated
from switch_jax.optim.parameter_kinds import Names, num_stacked, own_names
from switch_jax.partitioning.mesh import current_mesh, platform

_CACHE = 2 * 2**20  # bytes; a smaller stack stays in the cache by itself


def is_faster(names: Names, parameter: jax.Array) -> bool:
    """Whether the stack is updated faster so; with these logical axes."""
    is_stack_of_matrices = 0 < num_stacked(names) == parameter.ndim - 2
    is_one_cpu = platform() == "cpu" and current_mesh().size == 1
    return is_stack_of_matrices and is_one_cpu and parameter.size * 4 > _CACHE


def update_each(
    update: Callable[..., tuple[Updated, Any]],
    names: Names,
    gradient: jax.Array,
    state: Any,
    parameter: jax.Array,
) -> tuple[Updated, Any]:
    """Updates each matrix [R, C] of a stack [..., R, C] by itself, in the memory of the old one.

    `update` takes logical axes, gradient, state and parameter of one matrix, and gives its
    `Updated` and its new state; `names` are the stack's axes, and the state's arrays have the same
    leading ones.
    """
    stacked, own = parameter.shape[: num_stacked(names)], parameter.shape[num_stacked(names) :]
    number = math.prod(stacked)

    def body(parameters: jax.Array, scanned: tuple) -> tuple[jax.Array, tuple]:
        index, state = scanned
        # Not by a reshape of the stack: the compiler would make the gradients of all layers twice,
        # in its shape and in that of the stack.
        place: list[Any] = [*jnp.unravel_index(index, stacked), *[0] * len(own)]
        sizes = [1] * len(stacked) + list(own)
        one, of_one = (
            lax.dynamic_slice(stack, place, sizes).reshape(own) for stack in (parameters, gradient)
        )
        updated, state = update(own_names(names), of_one, state, one)
        new = updated.parameter.reshape(sizes)
        parameters = lax.dynamic_update_slice(parameters, new, place)
        return parameters, (updated.square_sum, updated.update_square_sum, state)

    states = jax.tree.map(lambda x: x.reshape(number, *x.shape[len(stacked) :]), state)
    new, (squares, update_squares, states) = lax.scan(body, parameter, (jnp.arange(number), states))
    state = jax.tree.map(lambda x: x.reshape(*stacked, *x.shape[1:]), states)
    return Updated(new, squares.sum(), update_squares.sum()), state
