"""Adafactor as T5 uses it (Shazeer and Stern 2018, with Mesh TensorFlow's defaults).

Factored second moment, no momentum, updates clipped by their RMS and scaled by the RMS of the
parameter. Layers and experts are stacked along axes of one array, but each is a matrix of its own:
those axes are batch axes for factoring, for clipping and for the parameter scale.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from switch_jax.kernels.by_platform import update_matrices, weighted_mean
from switch_jax.optim.apply import NOTHING, Optimizer, Updated, by_field, sum_of_squares
from switch_jax.optim.parameter_kinds import Names, map_parameters, num_stacked

_DECAY_RATE = 0.8  # the moment's decay at update t (from 1) is 1 - t^-0.8
_CLIPPING_THRESHOLD = 1.0  # largest RMS of an update, before it is scaled
_EPSILON = 1e-30  # added to squared gradients
_MIN_SCALE = 1e-3  # lower bound of the parameter's RMS by which updates are scaled


class Moment(NamedTuple):
    """Second moment of one parameter: means over rows and columns, or in full.

    What is not used is None; for a parameter that is not trained, all of it is.

    Attributes:
      row: [..., R] mean over the last axis of a factored [..., R, C] matrix.
      column: [..., C] mean over its last axis but one.
      full: the shape of the parameter, where it is not factored.
      square_sum: [...] of the parameter itself, computed where it is updated: apart, that would
        read all parameters once more, a quarter of the optimiser's time on a TPU.
    """

    row: Any
    column: Any
    full: Any
    square_sum: Any


class AdafactorState(NamedTuple):
    """`updates`: int32, number of updates done; `moments`: a `Moment` for each parameter."""

    updates: Any
    moments: Any


def adafactor(
    learning_rate: optax.Schedule,
    axes: Any,
    *,
    is_trained: Any = None,
    factors: Any = None,
    min_dim_size_to_factor: int = 128,
) -> Optimizer:
    """The optimiser of T5 and of the Switch Transformers.

    Args:
      learning_rate: relative to the RMS of each parameter; a function of the updates done.
      axes: the parameters' nested dict with a tuple of logical axis names for each.
      is_trained: the same nested dict with a bool for each parameter; those that are not trained
        stay as they are, and have no state. None: all are trained.
      factors: the same with a number for each, by which its rate is multiplied. None: 1 for all.
      min_dim_size_to_factor: a matrix is factored if both its sides are at least this long.
    """
    if factors is None:
        factors = map_parameters(lambda _: 1.0, axes)

    def init_moment(names: Names, p: jax.Array, is_trained: bool = True) -> Moment:
        if not is_trained:
            return Moment(None, None, None, None)
        own = p.shape[num_stacked(names) :]
        squares = jnp.sum(jnp.square(p), axis=tuple(range(num_stacked(names), p.ndim)))  # [...]
        if len(own) == 2 and min(own) >= min_dim_size_to_factor:
            row = jnp.zeros(p.shape[:-1], jnp.float32)
            column = jnp.zeros((*p.shape[:-2], p.shape[-1]), jnp.float32)
            return Moment(row, column, None, squares)
        return Moment(None, None, jnp.zeros(p.shape, jnp.float32), squares)

    def init(parameters: Any) -> AdafactorState:
        trees = [parameters] if is_trained is None else [parameters, is_trained]
        moments = map_parameters(init_moment, axes, *trees)
        return AdafactorState(jnp.zeros([], jnp.int32), moments)

    def update_one(
        gradient: jax.Array,
        moment: Moment,
        parameter: jax.Array,
        *,
        factor: float,
        count: jax.Array,
        skip: jax.Array | bool,
    ) -> tuple[Updated, Moment]:
        if moment.square_sum is None:  # not trained
            return Updated(parameter, sum_of_squares(parameter), jnp.float32(0)), moment
        own_axes = tuple(range(moment.square_sum.ndim, parameter.ndim))
        decay = 1.0 - (count.astype(jnp.float32) + 1.0) ** -_DECAY_RATE
        gradient = gradient.astype(jnp.float32)
        square = jnp.square(gradient)
        # [...] are the stacked axes, [R, C] is a matrix of one layer and expert.
        if moment.full is None:
            column = decay * moment.column + (1 - decay) * (square.mean(-2) + _EPSILON)  # [..., C]
            column_factor = jax.lax.rsqrt(column)[..., None, :]  # [..., 1, C]
            # The mean square of the update g / sqrt(row / mean(row) * column), computed from its
            # rows: computed from the update itself, the update would be written out once more.
            weighted = weighted_mean(square, 1 / column)  # [..., R]
            row = decay * moment.row + (1 - decay) * (square.mean(-1) + _EPSILON)  # [..., R]
            full, row_mean = None, row.mean(-1)  # [...]
            mean_square = row_mean * jnp.mean(weighted / row, axis=-1)  # [...]
            update = gradient * jax.lax.rsqrt(row)[..., None] * column_factor  # [..., R, C]
            normalizer = jnp.sqrt(row_mean)  # [...]
        else:
            row, column = None, None
            full = decay * moment.full + (1 - decay) * (square + _EPSILON)
            update = gradient * jax.lax.rsqrt(full)
            mean_square = jnp.mean(square / full, axis=own_axes)  # [...]
            normalizer = jnp.float32(1.0)
        clip = jnp.maximum(1.0, jnp.sqrt(mean_square) / _CLIPPING_THRESHOLD)  # [...]
        size = float(math.prod(parameter.shape[i] for i in own_axes))
        scale = jnp.maximum(jnp.sqrt(moment.square_sum / size), _MIN_SCALE)  # [...]
        rate = -learning_rate(count) * scale / clip  # [...]
        if factor != 1:
            rate = factor * rate
        # Not from the update itself, which would be read once more.
        update_square_sum = jnp.where(skip, 0.0, jnp.sum(mean_square * size * jnp.square(rate)))
        multiplier = rate * normalizer  # [...]
        update = update * multiplier.reshape(*multiplier.shape, *[1] * len(own_axes))
        update = jnp.where(skip, NOTHING, update)
        new = Moment(row, column, full, moment.square_sum)
        kept = jax.tree.map(lambda o, n: jnp.where(skip, o, n), moment, new)
        squares = jnp.sum(jnp.square(parameter + update), axis=own_axes)
        kept = kept._replace(square_sum=squares)
        new_parameter = (parameter + update).astype(parameter.dtype)
        return Updated(new_parameter, sum_of_squares(new_parameter), update_square_sum), kept

    def step(
        gradients: Any, state: AdafactorState, parameters: Any, skip: jax.Array | bool
    ) -> tuple[Updated, AdafactorState]:
        def update(
            _: Names, gradient: jax.Array, moment: Moment, parameter: jax.Array, factor: float
        ) -> tuple:
            own = functools.partial(update_one, factor=factor, count=state.updates, skip=skip)
            updated: tuple[jax.Array, ...]
            if moment.row is None:
                updated, new = own(gradient, moment, parameter)
            else:
                updated, new = update_matrices(own, gradient, moment, parameter)
            return *updated, new

        trees = gradients, state.moments, parameters, factors
        *updated, moments = by_field(map_parameters(update, axes, *trees))
        return Updated(*updated), AdafactorState(state.updates + jnp.where(skip, 0, 1), moments)

    return Optimizer(init, step)


def moment_axes(axes: Any, moments: Any) -> Any:
    """Logical axes of the arrays in `AdafactorState.moments`, to shard them as the parameters."""

    def one(names: Names, moment: Moment) -> Moment:
        if moment.square_sum is None:
            return moment
        stacked = names[: moment.square_sum.ndim]
        if moment.full is not None:
            return Moment(None, None, names, stacked)
        return Moment(names[:-1], (*names[:-2], names[-1]), None, stacked)

    return map_parameters(one, axes, moments)
