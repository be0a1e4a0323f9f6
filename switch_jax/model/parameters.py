"""Parameters: float32 arrays with the logical names of their axes and their initial deviation."""

import jax
import jax.numpy as jnp
from flax import nnx

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


def constant(shape: tuple[int, ...], axes: tuple[str, ...], value: float) -> nnx.Param:
    """The same number everywhere."""
    return nnx.Param(jnp.full(shape, value, jnp.float32), axes=axes, std=0.0)
