"""Sparse upcycling: a Switch model whose experts begin as copies of a dense model's layers.

As in Komatsuzaki et al. 2022 (arXiv 2212.05055); the scaling of `upcycled` is ours. Which layers
become sparse, and how many experts they get, is what the Switch model's config says. All other
parameters are those of the dense model.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from switch_jax.config import ModelConfig
from switch_jax.errors import UserError
from switch_jax.model import init_parameters, logical_axes
from switch_jax.optim.adafactor import AdafactorState, Moment
from switch_jax.optim.stacked import Names, map_parameters, num_stacked
from switch_jax.partitioning.rules import is_axes

# What 'scaled_copy' multiplies the router's first weights by: all its probabilities are then within
# some per cent of 1 / E, and the choice of the largest is the same.
ROUTER_SCALE = 1e-2


def dense_twin(model: ModelConfig, *, scaled: bool = False) -> ModelConfig:
    """The dense model that a Switch model begins from.

    Args:
      model: the Switch model.
      scaled: as in `upcycled`.

    Raises:
      UserError: there is none.
    """
    if not model.num_experts:
        raise UserError(
            "UPCYCLE makes experts of a dense model's layers, and this model has none "
            "(NUM_EXPERTS = 0)"
        )
    if model.expert_mlp_dim not in (None, model.mlp_dim):
        raise UserError(
            f"experts of EXPERT_MLP_DIM = {model.expert_mlp_dim} cannot be copies of a layer of "
            f"MLP_DIM = {model.mlp_dim}"
        )
    for name, value in (("expert_sublayers", "feed_forward"), ("shared_expert_mlp_dim", None)):
        if getattr(model, name) != value:
            raise UserError(
                f"UPCYCLE does not go with {name.upper()} = {getattr(model, name)!r}, of which a "
                "dense model has no layer to begin from"
            )
    if scaled and (model.num_selected_experts > 1 or model.encoder_router_type == "experts_choose"):
        raise UserError(
            "UPCYCLE = 'scaled_copy' makes up for small gates of one expert a token, and here "
            f"NUM_SELECTED_EXPERTS = {model.num_selected_experts}, ENCODER_ROUTER_TYPE = "
            f"{model.encoder_router_type!r}: take 'copy'"
        )
    return dataclasses.replace(
        model,
        num_experts=0,
        num_selected_experts=1,
        second_expert_policy="all",
        ntlb_rounds=1,
        load_balance="loss",
        encoder_router_type="tokens_choose",
    )


def upcycled(
    model: ModelConfig, dense: Any, key: jax.Array, *, scaled: bool, noise: float
) -> dict[str, Any]:
    """The parameters that a Switch model begins with.

    A token's expert computes what the dense layer did, and the router's gate, between 1 / E and 1,
    multiplies it; the gates of several experts sum to 1. `scaled` makes up for the gate of one at
    the beginning: output projections are E times as large, and the router begins small, so that
    each gate is near 1 / E.

    Args:
      model: the Switch model.
      dense: nested dict with the parameters of its `dense_twin`.
      key: for the routers, which are drawn as always, and for the noise.
      scaled: see above.
      noise: standard deviation of what is added to each matrix of each expert, relative to the root
        mean square of the matrix; 0: all experts of a layer are equal.

    Returns:
      Nested dict of float32 arrays.
    """
    router_key, noise_key = jax.random.split(key)
    axes = logical_axes(model)

    def begin(names: Names, drawn: jax.Array, copied: Any, own_key: jax.Array) -> jax.Array:
        if "router" in names:
            return drawn * ROUTER_SCALE if scaled else drawn
        if "expert" not in names:
            return copied
        if scaled and names[-1] == "embed":
            copied = copied * model.num_experts
        if not noise:
            return copied
        deviation = noise * _root_mean_square(names, copied)  # [blocks, E, 1, 1]
        return copied + deviation * jax.random.normal(own_key, copied.shape)

    drawn = init_parameters(model, router_key)
    leaves, tree = jax.tree.flatten(drawn)
    keys = jax.tree.unflatten(tree, list(jax.random.split(noise_key, len(leaves))))
    return map_parameters(begin, axes, drawn, as_experts(model, dense), keys)


def upcycled_moments(
    model: ModelConfig, fresh: AdafactorState, dense: AdafactorState
) -> AdafactorState:
    """Adafactor's state of a Switch model, from that of its dense twin.

    Second moments of routers and experts are fresh. Some 1 / E of the tokens go through an expert,
    so its gradients are smaller than the dense layer's: with that layer's moments, its updates
    would be too small by a factor of sqrt(E) to E, and for long, since after t updates Adafactor's
    means are over the last t^0.8, 39,000 of 550,000. From fresh moments the updates would be too
    large so late in a run, but for clipping: their RMS is the learning rate times the parameter's.

    Args:
      model: the Switch model.
      fresh: the state that the optimiser begins with, for the Switch model's parameters.
      dense: the state of the dense model's optimiser.
    """

    def carry(names: Names, own: Moment, copied: Any) -> Moment:
        return own if {"router", "expert"} & set(names) else copied

    spread = as_experts(model, dense.moments)
    moments = map_parameters(carry, logical_axes(model), fresh.moments, spread)
    return AdafactorState(dense.updates, moments)


def as_experts(model: ModelConfig, dense: Any) -> dict[str, Any]:
    """Spreads a dense model's arrays over the layers and experts of a Switch model.

    Args:
      model: the Switch model.
      dense: nested dict as the parameters of its `dense_twin`, with an array for each parameter, or
        a tree of arrays; their leading axis counts layers.

    Returns:
      Nested dict as the Switch model's parameters. Leading axes count blocks and, where the
      parameter is the experts', experts. None for routers.
    """

    def of(path: Any, names: Names) -> Any:
        keys = [entry.key for entry in path]
        if "router" in names:
            return None
        if "layers" not in names:
            return _at(dense, keys)
        stack, blocks, layer, *rest = keys
        layers = model.layers_at(stack, blocks, layer)

        def spread(array: jax.Array) -> jax.Array:
            # [layers, ...] -> [blocks, ...]
            array = array[layers.start : layers.stop : layers.step]
            if "expert" not in names:
                return array
            rest = array.shape[1:]
            return jnp.broadcast_to(array[:, None], (len(array), model.num_experts, *rest))

        return jax.tree.map(spread, _at(dense, [stack, "blocks", "layer_0", *rest]))

    axes = logical_axes(model)
    return jax.tree_util.tree_map_with_path(of, axes, is_leaf=is_axes)


def _at(tree: Any, keys: Sequence[str]) -> Any:
    for key in keys:
        tree = tree[key]
    return tree


def _root_mean_square(names: Names, array: jax.Array) -> jax.Array:
    own_axes = tuple(range(num_stacked(names), array.ndim))
    return jnp.sqrt(jnp.mean(jnp.square(array), axis=own_axes, keepdims=True))
