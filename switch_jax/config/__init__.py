"""The configuration of a run: one frozen object, made of seven parts.

Nothing here loads JAX, TensorFlow or gin.
"""

import dataclasses
from collections.abc import Mapping

from switch_jax.config.data import DataConfig
from switch_jax.config.guard import GuardConfig
from switch_jax.config.loss import LossConfig
from switch_jax.config.mesh import MeshConfig
from switch_jax.config.model import ModelConfig
from switch_jax.config.optimizer import OptimizerConfig
from switch_jax.config.run import RunConfig

__all__ = [
    "Config",
    "DataConfig",
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
    """

    run: RunConfig
    model: ModelConfig
    data: DataConfig
    mesh: MeshConfig = MeshConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    loss: LossConfig = LossConfig()
    guard: GuardConfig = GuardConfig()

    @property
    def tokens_per_step(self) -> int:
        """Input and target tokens of a batch, padding included."""
        return self.run.batch_size * sum(self.data.lengths)

    def as_gin(self) -> str:
        """Gin text that describes this config, without macros."""
        lines = []
        for part in dataclasses.fields(self):
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
