"""Pretraining of Switch Transformers in JAX, from a laptop to TPU pods.

From Python, `load_config` reads a run's config from gin files, `train` trains it, `evaluate` scores
it, `load` returns a model that answers texts, and `route` says which experts the tokens of a text
go to (docs/python.md). docs/reference/python.md says which names are kept stable.
"""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from switch_jax.version import __version__

# In a checkout tasks/, launch/ and gin/ lie beside the library. They are looked for here, before a
# finder of an editable install is asked, which knows those of one checkout for all.
if not (Path(__file__).parent / "tasks").is_dir():
    __path__.append(str(Path(__file__).parents[1]))

# Of TensorFlow's C++ code, which prints a Python trace for each bad example; our own line says
# where it is. JAX would set 1 when it is imported.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

if TYPE_CHECKING:
    from switch_jax.api import evaluate, load, load_config, route, train
    from switch_jax.config import (
        Config,
        DataConfig,
        DistillationConfig,
        GuardConfig,
        LossConfig,
        MeshConfig,
        ModelConfig,
        OptimizerConfig,
        RunConfig,
    )
    from switch_jax.inference.interactive import InteractiveModel
    from switch_jax.inference.routing import Routing
    from switch_jax.trainer.signals import Stopped
    from switch_jax.utils.errors import UserError

__all__ = [
    "Config",
    "DataConfig",
    "DistillationConfig",
    "GuardConfig",
    "InteractiveModel",
    "LossConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "Routing",
    "RunConfig",
    "Stopped",
    "UserError",
    "__version__",
    "evaluate",
    "load",
    "load_config",
    "route",
    "train",
]

# Where the names are that are in none of `config` and `api`; `config` loads neither JAX nor gin.
_MODULES = {
    "InteractiveModel": "inference.interactive",
    "Routing": "inference.routing",
    "Stopped": "trainer.signals",
    "UserError": "utils.errors",
}


def __getattr__(name: str) -> object:
    """Imports a public name once it is used: most load JAX and TensorFlow."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "config" if name.endswith("Config") else "api")
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
