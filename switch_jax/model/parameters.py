"""Making parameters: float32 arrays that know the logical names of their axes, and their spread."""

import jax
import jax.numpy as jnp
from flax import nnx

from switch_jax.partitioning.rules import gather

# A standard normal cut at 2 sigma has this standard deviation.
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


def for_computing(block: nnx.State, dtype: str) -> nnx.State:
    """The parameters of one block of a scan as it computes with them.

    Matrices are in the activations' `dtype`, except for the router's, and, where they are fully
    sharded, gathered: here and not all at once, in that dtype and not in float32.
    """

    def one(parameter: nnx.Variable) -> nnx.Variable:
        names = parameter.axes[1:]  # without 'layers', which the scan takes off
        value = parameter[...]
        if value.ndim > 1:
            if "router" not in names and value.dtype != dtype:
                # Behind a barrier: else each product would read it in float32 and cast it anew.
                value = jax.lax.optimization_barrier(value.astype(dtype))
            value = gather(value, names)
        return parameter.replace(value)

    return jax.tree.map(one, block, is_leaf=lambda p: isinstance(p, nnx.Variable))
