"""The floating-point operations of a training step, that of the teacher included."""

from switch_jax.config import Config
from switch_jax.model.flops import training_flops


def step_flops(config: Config, slots: tuple[float, float] | None = None) -> float:
    """Floating-point operations that a step needs, of the whole batch on all devices.

    Args:
      config: the run. A teacher computes its forward pass alone, a third of what training it takes;
        its empty slots are not counted.
      slots: of the run's model; see `training_flops`.
    """
    row = training_flops(config.model, *config.data.lengths, slots)
    if config.teacher_model is not None:
        row += training_flops(config.teacher_model, *config.data.lengths) / 3
    return config.run.batch_size * row
