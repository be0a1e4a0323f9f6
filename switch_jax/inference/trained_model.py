"""The config, mesh and parameter shapes of a run, prepared for inference."""

import dataclasses
from typing import Any

from etils import epath
from jax.sharding import Mesh

from switch_jax.checkpointing import commit_time, find_checkpoint
from switch_jax.config import Config, DataConfig
from switch_jax.data.checks import check_vocabulary
from switch_jax.data.configured_tasks import identities, vocabularies
from switch_jax.errors import UserError
from switch_jax.inference.decoding import DecodingConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.microbatches import check_batch
from switch_jax.train_step.state import abstract_state


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

    model_dir: epath.Path
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
            "model": dataclasses.asdict(self.config.model),
            "lengths": dict(data.task_feature_lengths),
            "vocabulary": identities(data),
            "use_cached": data.use_cached_tasks,
            "batch_size": self.config.run.batch_size,
        }


def prepare_model(model_dir: epath.Path, config: Config, decoding: DecodingConfig) -> TrainedModel:
    """Lays the model out on this machine's devices; reads no parameters.

    Args:
      model_dir: the run's folder, or that of another format.
      config: of the model; a batch is computed at once, without microbatches.
      decoding: how sequences are decoded.

    Raises:
      UserError: the vocabulary does not fit the model, or the config does not fit the devices.
    """
    config = config.replace("run", num_microbatches=1)
    check_vocabulary(config)
    mesh = make_mesh(config.mesh)
    check_batch(config, mesh.shape)
    parameters = abstract_state(config, mesh).parameters
    return TrainedModel(model_dir, config, mesh, parameters, decoding)


def decoding_config(
    data: DataConfig, *, max_tokens: int | None = None, **options: Any
) -> DecodingConfig:
    """How targets of these data are decoded.

    Args:
      data: gives the id that ends a sequence.
      max_tokens: the most tokens of a sequence; None: the length of targets in `data`.
      options: other fields of `DecodingConfig`.

    Raises:
      FieldError: a value is out of range.
      UserError: there is no such option, two values contradict, or the vocabulary cannot be read.
    """
    known = [field.name for field in dataclasses.fields(DecodingConfig) if field.name != "eos_id"]
    if unknown := options.keys() - set(known):
        raise UserError(f"{min(unknown)} is no option of decoding: there are {', '.join(known)}")
    eos_id = vocabularies(data)["targets"].eos_id
    return DecodingConfig(
        max_tokens=data.lengths[1] if max_tokens is None else max_tokens,
        eos_id=-1 if eos_id is None else eos_id,
        **options,
    )
