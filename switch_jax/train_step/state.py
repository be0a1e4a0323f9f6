"""The training state and where it lies on the mesh."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh

from switch_jax.model import ModelConfig, abstract_parameters, init_parameters, logical_axes
from switch_jax.optim.adafactor import AdafactorState, moment_axes
from switch_jax.optim.optimizer import OptimizerConfig, make_optimizer
from switch_jax.partitioning.mesh import replicated
from switch_jax.partitioning.rules import parameter_places, shardings
from switch_jax.train_step.bad_step_guard import Guard, GuardConfig, init_guard


class TrainState(NamedTuple):
    """Everything that training changes.

    Attributes:
      step: int32 scalar, optimiser steps done.
      parameters: nested dict of float32 arrays.
      optimizer: the optimiser's state.
      guard: what bad steps are told by.
    """

    step: Any
    parameters: Any
    optimizer: Any
    guard: Guard


def init_state(
    model: ModelConfig,
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    guard: GuardConfig = GuardConfig(),  # noqa: B008  frozen
) -> TrainState:
    """A fresh state."""
    return fresh_state(init_parameters(model, key), optimizer, guard)


def fresh_state(
    parameters: Any,
    optimizer: optax.GradientTransformation,
    guard: GuardConfig = GuardConfig(),  # noqa: B008  frozen
) -> TrainState:
    """The state before the first step, with these parameters."""
    step = jnp.zeros([], jnp.int32)
    return TrainState(step, parameters, optimizer.init(parameters), init_guard(guard))


def abstract_state(
    model: ModelConfig,
    config: OptimizerConfig,
    mesh: Mesh | AbstractMesh,
    guard: GuardConfig = GuardConfig(),  # noqa: B008  frozen
    *,
    fully_sharded: bool = False,
) -> TrainState:
    """Shapes, dtypes and shardings of the state, without allocating it.

    The optimiser's state lies where the parameters do; see `partitioning.rules.parameter_places`.

    Raises:
      UserError: an axis of a parameter does not divide over its mesh axis.
    """
    axes = logical_axes(model)
    optimizer = make_optimizer(config, axes)
    parameters = abstract_parameters(model)
    optimizer_state = jax.eval_shape(optimizer.init, parameters)
    places = parameter_places(axes, parameters, mesh, fully_sharded)
    whole = replicated(mesh)
    state_shardings = TrainState(
        step=whole,
        parameters=shardings(places, mesh),
        optimizer=AdafactorState(
            whole, shardings(moment_axes(places, optimizer_state.moments), mesh)
        ),
        guard=Guard(*[whole] * len(Guard._fields)),
    )
    step, guards = jax.ShapeDtypeStruct((), jnp.int32), jax.eval_shape(lambda: init_guard(guard))
    shapes = TrainState(step, parameters, optimizer_state, guards)
    return jax.tree.map(
        lambda s, sharding: jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding),
        shapes,
        state_shardings,
    )
