"""Configs of the packaged gin files, each read once."""

import functools

from switch_jax import gin_config
from switch_jax.gin_config import GinConfig
from switch_jax.utils.paths import GIN_DIR

MODELS = sorted(path.stem for path in (GIN_DIR / "models").glob("*.gin"))
UNNEEDED = ("MODEL_DIR", "MIXTURE_OR_TASK_NAME", "INITIAL_CHECKPOINT_PATH", "TEACHER_DIR")


@functools.cache
def read(*files: str, bindings: tuple[str, ...] = ()) -> GinConfig:
    """What files say, as 'models/t5_base', with what they require."""
    return gin_config.read([f"{file}.gin" for file in files], bindings, unneeded=UNNEEDED)
