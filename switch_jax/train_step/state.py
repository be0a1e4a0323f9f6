"""The training state and where it lies on the mesh."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh

from switch_jax.config import Config, MeshConfig, ModelConfig
from switch_jax.model import abstract_parameters, init_parameters, logical_axes
from switch_jax.optim.apply import Optimizer
from switch_jax.optim.optimizer import make_optimizer, state_shardings
from switch_jax.partitioning.mesh import replicated
from switch_jax.partitioning.rules import parameter_specs, shardings
from switch_jax.train_step.bad_step_guard import Guard, init_guard
from switch_jax.train_step.unstacked_layers import (
    are_unstacked,
    has_lists,
    stack_layers,
    unstack_layers,
    unstacked_shapes,
)


class TrainState(NamedTuple):
    """Everything that training changes.

    `step`, an int32 scalar, counts optimiser steps done; `parameters` are a nested dict of float32
    arrays. Between steps layers may be unstacked, see `state_of_step`.
    """

    step: Any
    parameters: Any
    optimizer: Any
    guard: Guard

    def stacked(self) -> "TrainState":
        """The state with stacks of layers, as all but a step takes it.

        Unstacked layers are deleted: do not use this state afterwards.
        """
        return stack_layers(self, free=True)


def init_state(config: Config, optimizer: Optimizer, key: jax.Array) -> TrainState:
    """The state before the first step, with parameters drawn from `key`."""
    return fresh_state(config, optimizer, init_parameters(config.model, key))


def fresh_state(config: Config, optimizer: Optimizer, parameters: Any) -> TrainState:
    """The state before the first step, with these parameters."""
    step = jnp.zeros([], jnp.int32)
    return TrainState(step, parameters, optimizer.init(parameters), init_guard(config.guard))


def abstract_state(config: Config, mesh: Mesh | AbstractMesh) -> TrainState:
    """Shapes, dtypes and shardings of the state, without allocating it; raises as `abstract_model`.

    The optimiser's state lies where the parameters do; see `partitioning.rules.parameter_specs`.
    """
    parameters = abstract_model(config.model, config.mesh, mesh)
    optimizer_state = jax.eval_shape(make_optimizer(config).init, parameters)
    whole = replicated(mesh)
    own = jax.tree.map(lambda s: s.sharding, parameters)
    all_shardings = TrainState(
        step=whole,
        parameters=own,
        optimizer=state_shardings(optimizer_state, own),
        guard=Guard(*[whole] * len(Guard._fields)),
    )
    step = jax.ShapeDtypeStruct((), jnp.int32)
    guard = jax.eval_shape(lambda: init_guard(config.guard))
    shapes = TrainState(step, parameters, optimizer_state, guard)
    return jax.tree.map(_placed, shapes, all_shardings)


def state_of_step(config: Config, state: TrainState) -> TrainState:
    """The state, arrays or shapes, as a step takes it on the mesh set by `jax.set_mesh`.

    On a CPU, layers that are not scanned are unstacked (`unstacked_layers`). Their stacks are
    deleted: `state` must not be used afterwards. A state that a step returned is returned
    unchanged.
    """
    if not are_unstacked(config.model) or has_lists(state.parameters):
        return state
    parameters = unstacked_shapes(logical_axes(config.model), abstract_parameters(config.model))
    optimizer = jax.eval_shape(make_optimizer(config).init, parameters)
    return state._replace(
        parameters=unstack_layers(parameters, state.parameters),
        optimizer=unstack_layers(optimizer, state.optimizer),
    )


def abstract_model(model: ModelConfig, layout: MeshConfig, mesh: Mesh | AbstractMesh) -> Any:
    """Shapes, dtypes and shardings of a model's parameters, the run's or its teacher's.

    Raises UserError where an axis of a parameter does not divide over its mesh axis.
    """
    parameters = abstract_parameters(model)
    specs = parameter_specs(logical_axes(model), parameters, mesh, layout.fully_sharded_weights)
    return jax.tree.map(_placed, parameters, shardings(specs, mesh))


def _placed(s: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(s.shape, s.dtype, sharding=sharding)
