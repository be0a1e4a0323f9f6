"""A run's model, for those who ask it something."""

import dataclasses
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from switch_jax.checkpointing import commit_time, find_checkpoint
from switch_jax.config import Config
from switch_jax.data.configured_tasks import identities
from switch_jax.inference.decoding import DecodingConfig


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A run as it was configured, with what the user changes.

    Attributes:
      folder: MODEL_DIR.
      config: the run; `config.run.batch_size` rows are computed at a time.
      mesh: the devices, also those of `jax.set_mesh`.
      parameters: `ShapeDtypeStruct`s on the mesh, as `checkpointing.load_parameters` takes them.
      decoding: how sequences are decoded.
    """

    folder: Path
    config: Config
    mesh: Mesh
    parameters: Any
    decoding: DecodingConfig

    def settings(self, step: int) -> dict[str, Any]:
        """What results depend on beside the question and the decoding, as JSON.

        A checkpoint of the same step that was saved after the run went back has other settings.
        """
        data = self.config.data
        return {
            "step": step,
            "saved": commit_time(find_checkpoint(self.folder, step)),
            "model": dataclasses.asdict(self.config.model),
            "lengths": dict(data.task_feature_lengths),
            "vocabulary": identities(data),
            "use_cached": data.use_cached_tasks,
            "batch_size": self.config.run.batch_size,
        }
