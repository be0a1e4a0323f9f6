"""AdamW whose updates are scaled by the RMS of each parameter."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from switch_jax.optim.stacked import Names, map_parameters, num_stacked, square_sum


def scale_by_parameter_rms(axes: Any, minimum: float = 1e-3) -> optax.GradientTransformation:
    """`optax.scale_by_param_block_rms` for each layer and expert by itself."""

    def scaled(names: Names, update: jax.Array, p: jax.Array) -> jax.Array:
        own = p.shape[num_stacked(names) :]
        rms = jnp.sqrt(square_sum(names, p) / math.prod(own))
        scale = jnp.maximum(rms, minimum)
        return update * scale.reshape(*scale.shape, *[1] * len(own))

    def update(updates: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        return map_parameters(scaled, axes, updates, parameters), state

    return optax.GradientTransformation(lambda parameters: optax.EmptyState(), update)
