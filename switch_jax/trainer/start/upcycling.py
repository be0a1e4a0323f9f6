"""UPCYCLE: a Switch model whose experts begin as copies of a dense model's layers.

As in Komatsuzaki et al. 2022 (arXiv 2212.05055); 'scaled_copy' is ours. Parameters other than
routers and experts are the dense model's.
"""

import dataclasses

from flax.traverse_util import flatten_dict, unflatten_dict

from switch_jax.config import ModelConfig
from switch_jax.model.parameter_names import parameter_axes
from switch_jax.optim.adafactor import AdafactorState
from switch_jax.trainer.start.origins import Origins, in_pieces, layer_by_layer
from switch_jax.utils.errors import UserError

# What 'scaled_copy' multiplies the router's first weights by: all its probabilities are then within
# some per cent of 1 / E, and the choice of the largest is the same.
ROUTER_SCALE = 1e-2


def dense_twin(model: ModelConfig, upcycle: str) -> ModelConfig:
    """The dense model that a Switch model begins from by UPCYCLE; UserError: there is none."""
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
    if model.num_selected_experts > 1 and not model.normalize_gates:
        raise UserError(
            f"UPCYCLE does not go with NUM_SELECTED_EXPERTS = {model.num_selected_experts} and "
            "NORMALIZE_GATES = False: a token's gates would sum to less than 1, so that the model "
            "would begin far from the dense one"
        )
    one_each = model.num_selected_experts == 1 and model.encoder_router_type != "experts_choose"
    if upcycle == "scaled_copy" and not one_each:
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


def upcycled(model: ModelConfig, dense: ModelConfig, upcycle: str, noise: float) -> Origins:
    """Where the parameters of a Switch model come from; `dense` is its `dense_twin`.

    A token's expert computes what the dense layer did, and the router's gate, between 1 / E and 1,
    multiplies it; the normalised gates of several experts sum to 1. Routers are drawn.
    'scaled_copy' makes up for the gate of one at the beginning: output projections are E times as
    large, and the router begins small, so that each gate is near 1 / E. Without `noise` all experts
    of a layer are equal.
    """
    experts, is_scaled = model.num_experts, upcycle == "scaled_copy"
    origins = layer_by_layer(model, dense)
    for name, axes in parameter_axes(model).items():
        if "router" in axes:
            origins[name] = origins[name]._replace(factor=ROUTER_SCALE if is_scaled else 1)
        elif "expert" in axes:
            factor = experts if is_scaled and axes[-1] == "embed" else 1
            origins[name] = origins[name]._replace(experts=experts, factor=factor, noise=noise)
    return origins


def upcycled_moments(
    origins: Origins, fresh: AdafactorState, dense: AdafactorState
) -> AdafactorState:
    """Adafactor's state of a Switch model, from a `fresh` one and that of its dense twin.

    Second moments of routers and experts are fresh. An expert gets some 1 / E of the tokens, and
    smaller gradients: with the dense layer's moments, its updates would be too small by a factor of
    sqrt(E) to E, and for long, since Adafactor's means after t updates are over the last t^0.8.
    From fresh moments they would be too large so late in a run, but for clipping.
    """
    own, theirs = (flatten_dict(state.moments, sep="/") for state in (fresh, dense))
    moments = {
        name: own[name] if origin.experts else in_pieces(origin, own[name], theirs)
        for name, origin in origins.items()
    }
    return AdafactorState(dense.updates, unflatten_dict(moments, sep="/"))
