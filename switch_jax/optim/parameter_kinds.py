"""Layers and experts are stacked along axes of one array, but each is an array of its own."""

from collections.abc import Callable
from typing import Any

import jax

from switch_jax.partitioning.rules import STACKED, is_axes

Names = tuple[str, ...]  # the logical names of a parameter's axes


def own_names(names: Names) -> Names:
    """The axes of one layer and expert; the stacked ones come before them."""
    return tuple(name for name in names if name not in STACKED)


def num_stacked(names: Names) -> int:
    """How many axes are stacked."""
    return len(names) - len(own_names(names))


def is_matrix(names: Names) -> bool:
    """Whether a layer's or an expert's parameter is a matrix from features to features.

    Those of experts and routers are; the embedding, the logits and the position bias are not.
    """
    return len(own_names(names)) == 2 and not {"vocab", "relpos_buckets"} & set(names)


def is_router_bias(names: Names) -> bool:
    """Whether it is the biases by which a router evens out the load of the experts."""
    return own_names(names) == ("router",)


def map_parameters(function: Callable[..., Any], axes: Any, *trees: Any) -> Any:
    """`jax.tree.map` over the parameters, whose leaves in `axes` are tuples of names.

    Where the layers are unstacked, in some trees a list, it is called for each layer.
    """

    def each(names: Names, *values: Any) -> Any:
        layers = next((len(value) for value in values if isinstance(value, list)), None)
        if layers is None:
            return function(names, *values)
        lists = [value if isinstance(value, list) else [value] * layers for value in values]
        return [function(names, *layer) for layer in zip(*lists, strict=True)]

    return jax.tree.map(each, axes, *trees, is_leaf=is_axes)
