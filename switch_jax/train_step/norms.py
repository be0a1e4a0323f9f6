"""Norms by group of parameters; the logical axes of a parameter decide its group."""

import functools
import operator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from switch_jax.model.parameter_names import parameter_group
from switch_jax.optim.parameter_kinds import is_router_bias
from switch_jax.partitioning.rules import is_axes


class Norms(NamedTuple):
    """L2 norms, float32 scalars: of `all` arrays together, and of each of the `groups`.

    Router biases are left out: what they are updated by is no gradient of the loss.
    """

    all: jax.Array
    groups: dict[str, jax.Array]

    @staticmethod
    def of(squares: Any, axes: Any) -> "Norms":
        """From the sum of squares of each array, or of each of its layers, nested like `axes`."""
        sums: dict[str, Any] = {}
        totals = jax.tree.map(lambda _, each: _total(each), axes, squares, is_leaf=is_axes)
        names = jax.tree_util.tree_leaves_with_path(axes, is_leaf=is_axes)
        for (path, own_axes), square in zip(names, jax.tree.leaves(totals), strict=True):
            if is_router_bias(own_axes):
                continue
            group = parameter_group(jax.tree_util.keystr(path[:1], simple=True), own_axes)
            sums[group] = sums.get(group, 0.0) + square
        return Norms(jnp.sqrt(sum(sums.values())), {k: jnp.sqrt(v) for k, v in sums.items()})


def _total(squares: Any) -> jax.Array:
    return functools.reduce(operator.add, jax.tree.leaves(squares))
