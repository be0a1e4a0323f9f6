"""The floating-point operations of a training step, that of the teacher included."""

import dataclasses

from switch_jax.config import Config
from switch_jax.model.flops import training_flops


def step_flops(config: Config, slots: tuple[float, float] | None = None) -> float:
    """Floating-point operations that a step needs, of the whole batch on all devices.

    Args:
      config: the run. A teacher computes its forward pass alone, a third of what training it takes,
        with its capacity of evaluation; its empty slots are not counted.
      slots: of the run's model; see `training_flops`.
    """
    row = training_flops(config.model, *config.data.lengths, slots)
    teacher = config.teacher_model
    if teacher is not None:
        capacity = teacher.eval_expert_capacity_factor
        teacher = dataclasses.replace(teacher, train_expert_capacity_factor=capacity)
        row += training_flops(teacher, *config.data.lengths) / 3
    return config.run.batch_size * row
