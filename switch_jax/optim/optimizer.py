"""The optimiser of a run, and which parameters it trains."""

from typing import Any

import jax
import optax

from switch_jax.config import OptimizerConfig
from switch_jax.errors import UserError
from switch_jax.optim.adafactor import adafactor
from switch_jax.optim.schedules import learning_rate_schedule


def make_optimizer(config: OptimizerConfig, axes: Any) -> optax.GradientTransformationExtraArgs:
    """T5's Adafactor; `axes` are the parameters' logical axes.

    Raises:
      UserError: the model has no parameter of those that are to be trained.
    """

    def is_trained(names: tuple[str, ...]) -> bool:
        wanted = config.trained_parameters
        return wanted == "all" or ("expert" in names) == (wanted == "expert")

    if not any(map(is_trained, jax.tree.leaves(axes, is_leaf=lambda x: type(x) is tuple))):
        raise UserError(
            f"trained_parameters = {config.trained_parameters!r}, but the model is dense: it has "
            "no experts; write 'all'"
        )
    return adafactor(
        learning_rate_schedule(config),
        axes,
        is_trained=is_trained,
        min_dim_size_to_factor=config.min_dim_size_to_factor,
    )
