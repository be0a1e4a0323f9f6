"""Pretraining of Switch Transformers in JAX, from a laptop to TPU pods.

From Python, `switch_jax.load(PATH)` returns a model that answers texts (docs/evaluating.md).
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from switch_jax.api import load

__version__ = "0.1.0"

__all__ = ["__version__", "load"]


def __getattr__(name: str) -> object:
    """Imports `switch_jax.api`, which loads JAX and TensorFlow, once it is used."""
    if name == "load":
        from switch_jax import api

        return api.load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
