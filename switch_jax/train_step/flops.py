"""The floating-point operations of a training step, that of the teacher included."""

from collections.abc import Mapping

from switch_jax.config import Config
from switch_jax.model.flops import needed_slots, training_flops


def step_flops(config: Config, slots: Mapping[str, float] | None = None) -> float:
    """Floating-point operations that a step needs, of the whole batch on all devices.

    A teacher computes its forward pass alone, a third of what training it takes, with its capacity
    of evaluation; its empty slots are not counted. `slots`, of the run's model: `training_flops`.
    """
    lengths = config.data.task_feature_lengths
    row = training_flops(config.model, lengths, slots)
    teacher = config.teacher_model
    if teacher is not None:
        slots_of_teacher = needed_slots(teacher, training=False)
        row += training_flops(teacher, lengths, slots_of_teacher) / 3
    return config.run.batch_size * row
