"""Muon: momentum, orthogonalised, for matrices (Jordan et al. 2024)."""

from typing import Any

import jax
import optax

from switch_jax.optim.stacked import Names, map_to_two, num_stacked

# The RMS that updates of AdamW have, on average (Liu et al. 2025, arXiv 2502.16982, section 2.2).
# With it, matrices take the learning rate and the weight decay that suit AdamW.
_RMS = 0.2


def scale_by_muon(axes: Any) -> optax.GradientTransformation:
    """`optax.contrib.scale_by_muon` for each layer and expert by itself, to an RMS of 0.2.

    Given stacked matrices, optax would merge the axes of layers and experts into one, and then all
    devices would gather all experts: no sharding splits the second of two merged axes. `jax.vmap`
    leaves the axes as they are.

    Args:
      axes: the matrices' logical axes.
    """
    one = optax.contrib.scale_by_muon()
    stacked = optax.contrib.MuonState(count=None, mu=0, ns_coeffs=None)

    def update(gradients: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        def each(names: Names, gradient: jax.Array, mu: jax.Array) -> tuple[Any, Any]:
            function = one.update
            for _ in range(num_stacked(names)):
                function = jax.vmap(function, in_axes=(0, stacked), out_axes=(0, stacked))
            orthogonal, new = function(gradient, state._replace(mu=mu))
            return orthogonal * (_RMS * max(gradient.shape[-2:]) ** 0.5), new.mu

        updates, mu = map_to_two(each, axes, gradients, state.mu)
        return updates, state._replace(count=optax.safe_increment(state.count), mu=mu)

    return optax.GradientTransformation(one.init, update)
