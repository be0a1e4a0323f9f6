"""The activations of feed-forward layers, dense ones and experts, by their names in a config."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Activation(NamedTuple):
    """From the input projections of a token, [..., F] each, to the hidden activation [..., F].

    Attributes:
      function: it takes the projections, and acts on each element.
      num_projections: how many it takes: 1, or 2 where one is the gate of the other.
    """

    function: Callable[..., jax.Array]
    num_projections: int


@jax.custom_vjp
def relu(x: jax.Array) -> jax.Array:
    """max(x, 0), whose backward pass needs only the result, which the next product keeps anyway."""
    return jax.nn.relu(x)


def _relu_fwd(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    y = jax.nn.relu(x)
    return y, y


def _relu_bwd(y: jax.Array, y_grad: jax.Array) -> tuple[jax.Array]:
    # Not where(y > 0, ...): the compiler turns that into x > 0, and keeps x or a packed mask.
    return (y_grad * jnp.sign(y),)


relu.defvjp(_relu_fwd, _relu_bwd)


def gated_gelu(gate: jax.Array, linear: jax.Array) -> jax.Array:
    """GELU of one projection, approximated by tanh as in T5 1.1, times the other one."""
    return jax.nn.gelu(gate, approximate=True) * linear


def swiglu(gate: jax.Array, linear: jax.Array) -> jax.Array:
    """SiLU of one projection, x * sigmoid(x), times the other one."""
    return jax.nn.silu(gate) * linear


def reglu(gate: jax.Array, linear: jax.Array) -> jax.Array:
    """ReLU of one projection, times the other one."""
    return relu(gate) * linear


ACTIVATIONS = {
    "relu": Activation(relu, 1),
    "gated-gelu": Activation(gated_gelu, 2),
    "swiglu": Activation(swiglu, 2),
    "reglu": Activation(reglu, 2),
}
