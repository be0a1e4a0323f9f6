"""A run's model, prepared for inference."""

import dataclasses
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from switch_jax.checkpointing import commit_time, find_checkpoint
from switch_jax.config import Config
from switch_jax.config.renamed_fields import recorded_model
from switch_jax.data.configured_tasks import identities
from switch_jax.inference.decoding import DecodingConfig


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """The model of a run, with its config as the command line changes it.

    Attributes:
      model_dir: the run's folder.
      config: the run's config; `config.run.batch_size` examples are computed together.
      mesh: the devices, the same as in `jax.set_mesh`.
      parameters: `ShapeDtypeStruct`s on the mesh, as `checkpointing.load_parameters` takes them.
      decoding: how sequences are decoded.
    """

    model_dir: Path
    config: Config
    mesh: Mesh
    parameters: Any
    decoding: DecodingConfig

    def settings(self, step: int) -> dict[str, Any]:
        """What results depend on, apart from the examples and the decoding, as JSON.

        The time of saving is part of it: a run that went back to an earlier checkpoint saves
        another checkpoint of the same step.
        """
        data = self.config.data
        return {
            "step": step,
            "saved": commit_time(find_checkpoint(self.model_dir, step)),
            "model": recorded_model(self.config.model),
            "lengths": dict(data.task_feature_lengths),
            "vocabulary": identities(data),
            "use_cached": data.use_cached_tasks,
            "batch_size": self.config.run.batch_size,
        }
