"""The configuration of a run: one frozen object, made of eight parts.

Nothing here loads JAX, TensorFlow or gin.
"""

import dataclasses
from collections.abc import Mapping

from switch_jax.config.data import DataConfig
from switch_jax.config.distillation import DistillationConfig
from switch_jax.config.guard import GuardConfig
from switch_jax.config.loss import LossConfig
from switch_jax.config.mesh import MeshConfig
from switch_jax.config.model import ModelConfig
from switch_jax.config.optimizer import OptimizerConfig
from switch_jax.config.run import RunConfig
from switch_jax.errors import UserError

__all__ = [
    "Config",
    "DataConfig",
    "DistillationConfig",
    "GuardConfig",
    "LossConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimizerConfig",
    "RunConfig",
]


@dataclasses.dataclass(frozen=True)
class Config:
    """Everything that a run is configured by.

    Attributes:
      run: how long it is, what it is called, how often it evaluates and saves.
      model: sizes of the Transformer and its experts.
      data: what is read, and how it is laid out.
      mesh: how many ways each kind of parallelism splits the work.
      optimizer: how the parameters are updated.
      loss: what is minimised.
      guard: when a step is bad, and what follows.
      distillation: the teacher that it learns from, if there is one.
      teacher: the config of the teacher's run, which is read from its folder: no part of this one's
        gin text. None: there is no teacher.
    """

    run: RunConfig
    model: ModelConfig
    data: DataConfig
    mesh: MeshConfig = MeshConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    guard: GuardConfig = GuardConfig()
    distillation: DistillationConfig = DistillationConfig()
    teacher: "Config | None" = None

    def __post_init__(self) -> None:
        """Raises UserError where two parts contradict each other."""
        self._check_schedule()
        self._check_start()
        self._check_teacher()

    def _check_schedule(self) -> None:
        steps, warmup = self.lr_decay_steps, self.optimizer.warmup_steps
        if steps and warmup + steps > self.run.train_steps:
            raise UserError(
                f"LR_SCHEDULE = {self.optimizer.lr_schedule!r} has {warmup:,} steps of warm-up and "
                f"{steps:,} of decay, more than TRAIN_STEPS = {self.run.train_steps:,}: lower "
                "WARMUP_STEPS" + (" or DECAY_STEPS" if self.optimizer.decay_steps else "")
            )

    def _check_start(self) -> None:
        distillation, start = self.distillation, self.run.initial_checkpoint_path
        is_taken = distillation.teacher_dir is not None and distillation.initialize_from_teacher
        if is_taken and start is not None:
            raise UserError(
                f"the run cannot start both from INITIAL_CHECKPOINT_PATH = {start!r} and from the "
                f"weights of TEACHER_DIR = {distillation.teacher_dir!r}: set "
                "INITIALIZE_FROM_TEACHER to False, or INITIAL_CHECKPOINT_PATH to None"
            )

    def _check_teacher(self) -> None:
        if self.teacher is None:
            return
        rows, own = self.teacher.model.num_embeddings, self.model.num_embeddings
        if rows != own:
            raise UserError(
                f"the teacher in {self.distillation.teacher_dir} has NUM_EMBEDDINGS = {rows}, and "
                f"the model {own}: set NUM_EMBEDDINGS to {rows}, or take a teacher of the model's "
                "vocabulary"
            )

    @property
    def teacher_model(self) -> ModelConfig | None:
        """The model of the teacher that each step runs; None where the loss has no part of it."""
        if self.teacher is None or not self.distillation.fraction_soft:
            return None
        return self.teacher.model

    @property
    def lr_decay_steps(self) -> int:
        """How many of the last steps have a learning rate that falls to its final value, or 0."""
        steps, optimizer = self.run.train_steps, self.optimizer
        if optimizer.lr_schedule in ("cosine", "linear"):
            return max(1, steps - optimizer.warmup_steps)
        if optimizer.lr_schedule == "wsd":
            return optimizer.decay_steps or max(1, steps // 10)
        return 0

    @property
    def tokens_per_step(self) -> int:
        """Input and target tokens of a batch, padding included."""
        return self.run.batch_size * sum(self.data.lengths)

    def as_gin(self) -> str:
        """Gin text that describes this config, without macros."""
        lines = []
        for part in dataclasses.fields(self):
            if part.name == "teacher":
                continue
            values = getattr(self, part.name)
            for field in dataclasses.fields(values):
                value = getattr(values, field.name)
                value = dict(value) if isinstance(value, Mapping) else value
                lines.append(f"{type(values).__name__}.{field.name} = {value!r}\n")
        return "".join(lines)

    def replace(self, part: str, **changes: object) -> "Config":
        """The same, with other fields of a part, as in `config.replace("run", random_seed=1)`."""
        changed = dataclasses.replace(getattr(self, part), **changes)
        return dataclasses.replace(self, **{part: changed})
