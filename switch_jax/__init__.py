"""Pretraining of Switch Transformers in JAX, from a laptop to TPU pods.

From Python, `switch_jax.load(PATH)` returns a model that answers texts, and
`switch_jax.route(model, TEXT)` says which experts its tokens go to (docs/evaluating.md).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from switch_jax.api import load, route

__version__ = "0.1.0"

__all__ = ["__version__", "load", "route"]


def __getattr__(name: str) -> object:
    """Imports `switch_jax.api`, which loads JAX and TensorFlow, once it is used."""
    if name in ("load", "route"):
        from switch_jax import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
