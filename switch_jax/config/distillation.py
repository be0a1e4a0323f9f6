"""The teacher that a run learns from beside its data."""

import dataclasses
from typing import Annotated

from switch_jax.utils.fields import Checked, Count, CountOrZero, Factor, Range


@dataclasses.dataclass(frozen=True)
class DistillationConfig(Checked):
    """Distillation of a trained model into the model of the run (section 4.2).

    A target token's loss is (1 - f) x the cross-entropy with the target + T^2 f x the cross-entropy
    with the teacher's probabilities, where f is `fraction_soft`, and T, `temperature`, divides the
    logits of both models in the second part, as in Mesh TensorFlow's StudentTeacher. z-loss and
    the routers' losses are added as ever.

    Attributes:
      teacher_dir: MODEL_DIR of the teacher's run; None: no teacher.
      teacher_step: step of the teacher's checkpoint; None: the newest when the run starts, which it
        then keeps.
      teacher_group_size, teacher_decoder_group_size: most tokens that the teacher routes together
        in its encoder and its decoder; None: as in its own config.
      fraction_soft: f, the part of the soft loss in the sum with the hard one; 0: the teacher gives
        initial weights at most, and is not run.
      temperature: T, by which the logits of both models are divided in the soft loss.
      initialize_from_teacher: a run that has no checkpoint of its own takes each parameter that
        both models have with the same name, shape and meaning, except the experts'; see
        `trainer.start.origins`.
    """

    teacher_dir: str | None = None
    teacher_step: CountOrZero | None = None
    teacher_group_size: Count | None = None
    teacher_decoder_group_size: Count | None = None
    fraction_soft: Annotated[float, Range(0, 1)] = 0.25
    temperature: Factor = 1.0
    initialize_from_teacher: bool = True
