"""Selective precision (section 2.4): which parameters compute in the activations' dtype."""

import jax
from flax import nnx

from switch_jax.partitioning.rules import gather_fully_sharded


def is_cast(axes: tuple[str, ...]) -> bool:
    """Whether a block's parameter with these axes computes in the activations' dtype, not float32.

    All matrices do, except the router's (section 2.4); the scales of the norms do not. `axes` are
    of one layer, without 'layers'.
    """
    return len(axes) > 1 and "router" not in axes


def cast_and_gather(block: nnx.State, dtype: str) -> nnx.State:
    """The parameters of one block of a scan, cast (see `is_cast`) and, fully sharded, gathered.

    They are gathered in the activations' dtype. Done here, it is done for one block at a time.
    """

    def prepare(parameter: nnx.Variable) -> nnx.Variable:
        axes = parameter.axes[1:]  # the scan has taken off 'layers'
        value = parameter[...]
        if is_cast(axes) and value.dtype != dtype:
            # Behind a barrier: without it each product would read float32 and cast again.
            value = jax.lax.optimization_barrier(value.astype(dtype))
        if value.ndim > 1:
            value = gather_fully_sharded(value, axes)
        return parameter.replace(value)

    return jax.tree.map(prepare, block, is_leaf=lambda p: isinstance(p, nnx.Variable))
