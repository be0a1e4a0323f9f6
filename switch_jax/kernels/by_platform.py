"""Operations whose fastest form differs by platform; callers ask nothing about the platform.

Each has the form for the devices of the mesh set by `jax.set_mesh`.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from switch_jax.partitioning.devices import platform
from switch_jax.partitioning.mesh import current_mesh

_FEW_ROWS = 64  # with fewer, a CPU multiplies faster expert by expert
_CACHE = 2 * 2**20  # bytes; a smaller stack of matrices stays in a CPU's cache by itself


def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """[..., D] x [D, F] -> [..., F]."""
    if platform() != "cpu":  # a TPU does not fuse across a reshape, even if that moves nothing
        return x @ w
    # As one matrix of rows: a CPU's compiler would transpose the gradient of the result, to sum it
    # over the batch and the length.
    rows = x.reshape(-1, x.shape[-1])  # [rows, D]
    return (rows @ w).reshape(*x.shape[:-1], w.shape[-1])


def matmul_for_logits(x: jax.Array, matrix: jax.Array, axes: str) -> jax.Array:
    """[B, L, D] x [V, D] (`axes` "vd") or [D, V] ("dv") -> [B, L, V] float32."""
    if platform() != "cpu":
        return jnp.einsum(f"bld,{axes}->blv", x, matrix, preferred_element_type=jnp.float32)
    rows = x.reshape(-1, x.shape[-1])  # [rows, D]
    logits = _logits_of_rows(rows, matrix if axes == "vd" else matrix.T)  # [rows, V]
    return logits.reshape(*x.shape[:-1], logits.shape[-1])


@jax.custom_vjp
def _logits_of_rows(x: jax.Array, table: jax.Array) -> jax.Array:
    """[rows, D] x [V, D] -> [rows, V] float32."""
    return jnp.einsum("nd,vd->nv", x, table, preferred_element_type=jnp.float32)


def _logits_fwd(x, table):
    return _logits_of_rows(x, table), (x, table)


def _logits_bwd(residuals, y_grad):
    """With the gradient of the table as [D, V], since a CPU's compiler transposes the first factor.

    In what differentiation makes that factor is the gradient of the logits: it is the larger one,
    and would be computed once more, column by column.
    """
    x, table = residuals
    x_grad = jnp.einsum("nv,vd->nd", y_grad, table, preferred_element_type=jnp.float32)
    table_grad = jnp.einsum("nd,nv->dv", x, y_grad, preferred_element_type=jnp.float32).T  # [V, D]
    return x_grad.astype(x.dtype), table_grad.astype(table.dtype)


_logits_of_rows.defvjp(_logits_fwd, _logits_bwd)


def sum_outer_products(x: jax.Array, y: jax.Array) -> jax.Array:
    """[..., D] and [..., E] -> [D, E]: the sum over all rows."""
    if platform() == "cpu":  # as one matrix of rows, as in `matmul`
        x, y = (rows.reshape(-1, rows.shape[-1]) for rows in (x, y))
    return jnp.einsum("...d,...e->de", x, y)


def batched_matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """[E, rows, D] x [E, D, F] -> [E, rows, F]."""
    if x.shape[0] == 1:  # a batch axis of 1 makes a TPU copy the weights into another layout
        return (x[0] @ w[0])[None]
    if platform() == "cpu" and x.shape[1] < _FEW_ROWS:
        return _matmul_one_by_one(x, w)
    return jnp.einsum("erd,edf->erf", x, w)


@jax.custom_vjp
def _matmul_one_by_one(x: jax.Array, w: jax.Array) -> jax.Array:
    """`batched_matmul`, one expert after another."""
    return lax.map(lambda one: one[0] @ one[1], (x, w))  # [E, rows, F]


def _one_by_one_fwd(x, w):
    return _matmul_one_by_one(x, w), (x, w)


def _one_by_one_bwd(residuals, y_grad):
    x, w = residuals
    x_grad = lax.map(lambda one: one[0] @ one[1].T, (y_grad, w))  # [E, rows, D]
    return x_grad, jnp.einsum("erd,erf->edf", x, y_grad)  # [E, D, F]


_matmul_one_by_one.defvjp(_one_by_one_fwd, _one_by_one_bwd)


def stable_argsort(keys: jax.Array, end: int) -> tuple[jax.Array, jax.Array]:
    """[G, T] int32 keys from 0 to `end` - 1 -> the same sorted, and the place that each had."""
    number = keys.shape[1]
    iota = lax.broadcasted_iota(jnp.int32, keys.shape, 1)  # [G, T]
    if platform() == "cpu" and end * number < 2**31:
        # A CPU sorts single numbers three times faster than pairs.
        both = lax.sort(keys * number + iota, dimension=1, is_stable=False)  # [G, T]
        return both // number, both % number
    keys, places = lax.sort((keys, iota), dimension=1, num_keys=1, is_stable=True)
    return keys, places


def put_in_order(order: jax.Array, values: jax.Array) -> jax.Array:
    """[G, T] values, of which the i-th belongs at `order[i]`, where they belong."""
    if platform() == "cpu":
        put = jax.vmap(lambda o, v: jnp.zeros_like(v).at[o].set(v, unique_indices=True))
        return put(order, values)
    # On a TPU a scatter costs more than a sort.
    return lax.sort((order, values), dimension=1, num_keys=1, is_stable=False)[1]


def weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
    """The means over C of [..., R, C] values times [..., C] weights: [..., R]."""
    if platform() == "cpu":  # a product writes no weighted values
        return jnp.einsum("...rc,...c->...r", values, weights) / values.shape[-1]
    return jnp.mean(values * weights[..., None, :], axis=-1)


def add_update(parameter: jax.Array, update: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The sum in the dtype of the parameter, and what was added, to compute its norm from."""
    new = (parameter + update).astype(parameter.dtype)
    if platform() == "tpu":
        # For the norm of `update` it would write that out, and read it to add it. Other platforms
        # would copy the old parameter for the norm of the difference.
        return new, new - parameter
    return new, update


def update_matrices(
    update: Callable[[jax.Array, Any, jax.Array], tuple[Any, Any]],
    gradient: jax.Array,
    state: Any,
    parameter: jax.Array,
) -> tuple[tuple[jax.Array, ...], Any]:
    """The update of a stack of matrices [..., R, C]; on one CPU of each by itself, in its memory.

    An update reads gradient and parameter several times. Over a stack that is larger than the cache
    each time is a pass over the memory; over one matrix, only the first is.

    Args:
      update: from gradient, state and parameter of any stack of matrices to a tuple of the new
        parameter and of sums over the stack, and the new state.
      gradient, parameter: [..., R, C].
      state: arrays whose first axes are those of the stack.
    """
    is_one_cpu = platform() == "cpu" and current_mesh().size == 1
    if parameter.ndim > 2 and is_one_cpu and parameter.size * 4 > _CACHE:
        return _update_one_by_one(update, gradient, state, parameter)
    return update(gradient, state, parameter)


def _update_one_by_one(
    update: Callable, gradient: jax.Array, state: Any, parameter: jax.Array
) -> tuple[tuple[jax.Array, ...], Any]:
    stacked, own = parameter.shape[:-2], parameter.shape[-2:]
    number = math.prod(stacked)

    def body(parameters: jax.Array, scanned: tuple) -> tuple[jax.Array, tuple]:
        index, state = scanned
        # Not by a reshape of the stack: the compiler would make the gradients of all layers twice,
        # in its shape and in that of the stack.
        place: list[Any] = [*jnp.unravel_index(index, stacked), 0, 0]
        sizes = [1] * len(stacked) + list(own)
        one, of_one = (
            lax.dynamic_slice(stack, place, sizes).reshape(own) for stack in (parameters, gradient)
        )
        (new, *sums), state = update(of_one, state, one)
        return lax.dynamic_update_slice(parameters, new.reshape(sizes), place), (sums, state)

    states = jax.tree.map(lambda x: x.reshape(number, *x.shape[len(stacked) :]), state)
    new, (sums, states) = lax.scan(body, parameter, (jnp.arange(number), states))
    state = jax.tree.map(lambda x: x.reshape(*stacked, *x.shape[1:]), states)
    return (new, *(each.sum() for each in sums)), state
