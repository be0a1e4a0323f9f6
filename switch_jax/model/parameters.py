"""Parameters: float32 arrays with the logical names of their axes and their initial deviation."""

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.partitioning.rules import gather_fully_sharded

# The standard deviation of a standard normal distribution truncated at 2 sigma.
_TRUNCATED_STD = 0.87962566103423978


def truncated_normal(
    rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], variance: float
) -> nnx.Param:
    """Normal with mean 0 and `variance`, nothing beyond 2 sigma (section 2.4, footnote 6)."""
    std = variance**0.5 / _TRUNCATED_STD
    value = std * jax.random.truncated_normal(rngs.params(), -2, 2, shape)
    return nnx.Param(value, axes=axes, std=variance**0.5)


def normal(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], std: float) -> nnx.Param:
    """Normal with mean 0 and standard deviation `std`."""
    return nnx.Param(std * jax.random.normal(rngs.params(), shape), axes=axes, std=std)


def ones(shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    """All ones."""
    return nnx.Param(jnp.ones(shape, jnp.float32), axes=axes, std=0.0)


def zeros(shape: tuple[int, ...], axes: tuple[str, ...]) -> nnx.Param:
    """All zeros."""
    return nnx.Param(jnp.zeros(shape, jnp.float32), axes=axes, std=0.0)


def is_cast(axes: tuple[str, ...]) -> bool:
    """Whether a block's parameter with these axes computes in the activations' dtype, not float32.

    All matrices do, except the router's (section 2.4); the scales of the norms do not. `axes` are
    of one layer, without 'layers'.
    """
    return len(axes) > 1 and "router" not in axes


def cast_and_gather(block: nnx.State, dtype: str) -> nnx.State:
    """The parameters of one block of a scan, cast (`is_cast`) and, fully sharded, gathered."""

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
