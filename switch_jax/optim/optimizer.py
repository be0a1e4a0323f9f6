"""The optimiser of a run, and which parameters it trains."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax.traverse_util import unflatten_dict
from jax.sharding import NamedSharding, PartitionSpec

from switch_jax.config import Config
from switch_jax.config.optimizer import TRAINED
from switch_jax.model import logical_axes
from switch_jax.model.parameter_names import (
    first_matches,
    matching,
    names_there,
    parameter_axes,
)
from switch_jax.optim.adafactor import AdafactorState, adafactor, moment_axes
from switch_jax.optim.apply import NOTHING, Optimizer, Updated, add, by_field, with_step
from switch_jax.optim.muon import scale_by_muon
from switch_jax.optim.parameter_kinds import Names, is_matrix, is_router_bias, map_parameters
from switch_jax.optim.schedules import learning_rate_schedule
from switch_jax.partitioning.rules import shardings
from switch_jax.utils.errors import UserError, did_you_mean


class Direction(NamedTuple):
    """What an optimiser takes gradients to, before weight decay and the learning rate.

    `matrices_only`: it is for matrices without routers; AdamW updates the other parameters.
    """

    of: Callable[[Config], optax.GradientTransformation]
    matrices_only: bool = False


# By `OptimizerConfig.optimizer`; 'adafactor', the third, is one function with all of its step.
DIRECTIONS = {
    "adamw": Direction(lambda c: optax.scale_by_adam(c.optimizer.adam_b1, c.optimizer.adam_b2)),
    "muon": Direction(lambda c: scale_by_muon(c.model.activation_dtype), matrices_only=True),
}


def make_optimizer(config: Config) -> Optimizer:
    """The optimiser of a run; raises as `trained_parameters` and `learning_rate_factors`."""
    optimizer, axes = config.optimizer, logical_axes(config.model)
    rate = learning_rate_schedule(config)
    trained, factors = trained_parameters(config), learning_rate_factors(config)
    names = parameter_axes(config.model)
    is_trained = unflatten_dict({name: name in trained for name in names}, sep="/")
    factors = unflatten_dict({name: factors.get(name, 1.0) for name in names}, sep="/")
    has_gradient = map_parameters(lambda n, own: own and not is_router_bias(n), axes, is_trained)
    has_bias = map_parameters(lambda n, own: own and is_router_bias(n), axes, is_trained)
    if optimizer.optimizer == "adafactor":
        made = adafactor(
            rate,
            axes,
            is_trained=has_gradient,
            factors=factors,
            min_dim_size_to_factor=optimizer.min_dim_size_to_factor,
        )
    else:
        made = with_step(_by_direction(config, rate, axes, has_gradient, factors))
    if optimizer.gradient_clip_norm is not None:
        made = _clipped(made, has_gradient, optimizer.gradient_clip_norm)
    if any(jax.tree.leaves(has_bias)):
        made = _with_router_biases(made, axes, has_bias, optimizer.router_bias_update_rate)
    return made


def trained_parameters(config: Config) -> list[str]:
    """The names of the parameters that TRAINED_PARAMETERS trains; UserError: the model has none."""
    wanted, axes = config.optimizer.trained_parameters, parameter_axes(config.model)
    if wanted == "all":
        return list(axes)
    if wanted in TRAINED:
        trained = [name for name in axes if ("expert" in axes[name]) == (wanted == "expert")]
        if not trained:
            raise UserError(
                f"TRAINED_PARAMETERS = {wanted!r}, but the model is dense: it has no experts; "
                "write 'all'"
            )
        return trained
    trained = list(matching(wanted, axes.keys()))
    if not trained:
        raise UserError(
            f"TRAINED_PARAMETERS = {wanted!r} matches no parameter{did_you_mean(wanted, TRAINED)}: "
            f"write {', '.join(TRAINED)} or a regular expression of whole names: "
            f"{names_there(axes)}"
        )
    return trained


def learning_rate_factors(config: Config) -> dict[str, float]:
    """The factor of each parameter in LEARNING_RATE_FACTORS; UserError: a pair matches none."""
    axes, pairs = parameter_axes(config.model), config.optimizer.learning_rate_factors or ()
    names = [name for name in trained_parameters(config) if not is_router_bias(axes[name])]
    kind = "that the learning rate trains (not what TRAINED_PARAMETERS freezes, nor router biases)"
    found = first_matches("LEARNING_RATE_FACTORS", pairs, names, kind)
    return dict.fromkeys(names, 1.0) | {name: factor for name, (_, factor) in found.items()}


def state_shardings(state: Any, parameters: Any) -> Any:
    """Shardings of an optimiser's state, or its shapes, from those of the parameters."""
    of_parameter = dict(jax.tree_util.tree_leaves_with_path(parameters))
    mesh = next(iter(of_parameter.values())).mesh

    def place(path: Any, array: Any) -> NamedSharding:
        """What is not of a parameter is on all devices."""
        ends = (path[i:] for i in range(len(path)))
        found = (of_parameter[end] for end in ends if end in of_parameter)
        return next(found, NamedSharding(mesh, PartitionSpec()))

    if isinstance(state, AdafactorState):
        specs = jax.tree.map(lambda sharding: tuple(sharding.spec), parameters)
        moments = shardings(moment_axes(specs, state.moments), mesh)
        return AdafactorState(NamedSharding(mesh, PartitionSpec()), moments)
    return jax.tree_util.tree_map_with_path(place, state)


def _by_direction(
    config: Config, rate: optax.Schedule, axes: Any, is_trained: Any, factors: Any
) -> optax.GradientTransformation:
    """One of `DIRECTIONS`. The state is {its name: state}, so a checkpoint names its optimiser.

    Weight decay is for matrices between features: in the embedding it would shrink rare rows.
    """
    own = config.optimizer.optimizer

    def label(names: Names, is_trained: bool) -> str:
        if not is_trained:
            return "frozen"
        is_taken = is_matrix(names) and "router" not in names
        return own if is_taken or not DIRECTIONS[own].matrices_only else "adamw"

    def scale(factor: float, updates: Any) -> Any:
        """`updates`: of a parameter; or a list, of its layers; or a `MaskedNode`."""
        return updates if factor == 1 else jax.tree.map(lambda u: factor * u, updates)

    labels = map_parameters(label, axes, is_trained)
    finish = optax.chain(
        optax.add_decayed_weights(config.optimizer.weight_decay, map_parameters(is_matrix, axes)),
        optax.scale_by_learning_rate(rate),
    )

    def made(label: str) -> optax.GradientTransformation:
        if label == "frozen":
            return optax.stateless_with_tree_map(lambda g, _: jnp.full_like(g, NOTHING))
        return optax.chain(DIRECTIONS[label].of(config), finish)

    used = sorted(set(jax.tree.leaves(labels)))  # in an order that is the same on all hosts
    inner = optax.partition({name: made(name) for name in used}, labels)

    def update(gradients: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        updates, new = inner.update(gradients, state[own], parameters)
        return jax.tree.map(scale, factors, updates), {own: new}

    return optax.GradientTransformation(lambda parameters: {own: inner.init(parameters)}, update)


def _with_router_biases(inner: Optimizer, axes: Any, is_bias: Any, rate: float) -> Optimizer:
    """Adds `rate` times 1 - load / mean load to each router bias, whose gradient is load - mean.

    Wang et al. 2024 (arXiv 2408.15664) compare this with its sign, of Algorithm 1. By the sign, an
    expert with most of the tokens keeps them for hundreds of steps. The state is the inner one's,
    which leaves these parameters alone.
    """

    def step(
        gradients: Any, state: Any, parameters: Any, skip: jax.Array | bool
    ) -> tuple[Updated, Any]:
        def one(
            names: Names, gradient: jax.Array, parameter: jax.Array, is_bias: bool, *updated: Any
        ) -> tuple:
            if not is_bias:
                return updated
            return add(parameter, jnp.where(skip, NOTHING, -rate * gradient.shape[-1] * gradient))

        updated, state = inner.step(gradients, state, parameters, skip)
        trees = gradients, parameters, is_bias, *updated
        return Updated(*by_field(map_parameters(one, axes, *trees))), state

    return Optimizer(inner.init, step)


def _clipped(inner: Optimizer, is_trained: Any, limit: float) -> Optimizer:
    """Gradients of a larger global norm are scaled down to `limit`. The state is the inner one's.

    The step sums the same squares for its metrics, and the compiler does so only once.
    """

    def clip(gradients: Any) -> Any:
        counted = jax.tree.map(lambda trained, g: g if trained else None, is_trained, gradients)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(counted)))
        factor = jnp.minimum(1.0, limit / norm)
        return jax.tree.map(lambda g: g * factor, gradients)

    return Optimizer(inner.init, lambda gradients, *args: inner.step(clip(gradients), *args))
