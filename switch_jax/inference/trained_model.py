"""A model in a folder, of a run or of another format: its config, its devices, its parameters."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

from etils import epath
from jax.sharding import Mesh

from switch_jax import gin_config
from switch_jax.checkpointing import chosen_step, find_checkpoint, load_parameters
from switch_jax.config import Config, DataConfig, MeshConfig
from switch_jax.conversion.formats import open_source
from switch_jax.conversion.hugging_face.tokenizer import sentencepiece_file
from switch_jax.conversion.source import Source
from switch_jax.conversion.source_to_gin import source_to_gin
from switch_jax.data.catalogue.checks import check_vocabularies_of_run, check_vocabulary
from switch_jax.data.catalogue.configured_tasks import vocabularies, vocabulary_fingerprints
from switch_jax.inference.batch_and_mesh import fit_batch, mesh_for_inference
from switch_jax.inference.decoding import DecodingConfig, check_options
from switch_jax.run_folder import RunFolder, read_commit_time
from switch_jax.runtime.multihost import run_on_all
from switch_jax.storage import exists, is_file, missing_model, storage_path
from switch_jax.train_step.state import abstract_state
from switch_jax.utils.errors import FieldError, UserError


class ModelFolder(NamedTuple):
    """A folder with a model, and its config: that of a run, or what `convert` would write.

    `source` is None for a run; `note` is what a user should know of the config, '' for nothing.
    `mesh_is_given` tells whether the caller has set the mesh, which is the run's otherwise.
    """

    path: epath.Path
    source: Source | None
    config: Config
    config_text: str
    note: str = ""
    mesh_is_given: bool = False


def open_folder(
    path: str | os.PathLike[str],
    gin_files: Sequence[str] = (),
    gin_bindings: Sequence[str] = (),
    search_paths: Sequence[str] = (),
    *,
    keep: bool = False,
    target: epath.Path | None = None,
) -> ModelFolder:
    """Finds out what a folder holds and reads its config; of another format by its header.

    `path` is the MODEL_DIR of a run, the folder of a Hugging Face model, or a T5X checkpoint;
    `gin_files` replace its config, and the other arguments are those of `gin_config.read`. `target`
    is the MODEL_DIR that a model of another format is to have; None: where it is. Raises UserError:
    there is no such model, or its config cannot be read.
    """
    folder = storage_path(path, "path")
    if not exists(folder):
        raise missing_model(path)
    files, source_bindings, note = [str(RunFolder(folder).config)], list[str](), ""
    source = open_source(folder)  # first: the folder of a T5X model has a config.gin of T5X
    vocabulary_file = None
    if source is not None:
        vocabulary = source.vocabulary
        vocabulary_file = sentencepiece_file(source.folder, source.architecture["num_embeddings"])
        if vocabulary_file is not None:
            vocabulary = str(RunFolder(target).vocabulary if target else vocabulary_file)
        files, source_bindings = source_to_gin(source, target or source.path, vocabulary)
    elif not gin_files and not is_file(RunFolder(folder).config):
        raise UserError(
            f"{path} holds no model: a MODEL_DIR has a config.gin, a Hugging Face folder a "
            "config.json, and a T5X checkpoint a file named checkpoint"
        )
    bindings = [*source_bindings, *gin_bindings]
    found = gin_config.read(gin_files or files, bindings, search_paths, ["MODEL_DIR"], keep=keep)
    if source and not vocabulary_file and found.config.data.vocabulary == source.vocabulary:
        remedy = "check that the model was trained with it"
        if source.vocabulary is None:
            remedy = "its ids mean something with a task alone whose own vocabulary has the same"
        note = (
            f"{source.folder} has no spiece.model, so VOCABULARY is {source.vocabulary!r}: {remedy}"
        )
    setters = [setter for of_name in found.origins.values() for setter in of_name]
    flags = ("--gin.MESH_", f"--gin.{MeshConfig.__name__}.")
    mesh_is_given = bool(gin_files) or any(setter.startswith(flags) for setter in setters)
    return ModelFolder(folder, source, found.config, found.text, note, mesh_is_given)


@dataclasses.dataclass(frozen=True)
class TrainedModel:
    """A model laid out on this machine's devices, whose parameters are not read yet.

    `source` is None for a run. `config.run.batch_size` examples are computed together. The mesh is
    that of `jax.set_mesh`, and `parameters` are `ShapeDtypeStruct`s on it.
    """

    path: epath.Path
    source: Source | None
    config: Config
    mesh: Mesh
    parameters: Any

    def chosen_step(self, checkpoint: str) -> int | None:
        """Returns the step of a checkpoint, see `read_only.chosen_step`; None for other formats."""
        if self.source is None:
            return chosen_step(self.path, checkpoint)
        if checkpoint != "latest":
            raise UserError(
                f"{self.path} is one model, without checkpoints: leave out {checkpoint!r}"
            )
        return None

    def load(self, step: int | None) -> Any:
        """Reads the parameters of a step from `chosen_step` onto the mesh: float32, nested alike.

        UserError: they cannot be read, or are of another model; TransientError: the storage failed.
        """
        if self.source is not None:
            return self.source.load(self.parameters)
        return load_parameters(self.path, self.parameters, step)

    def settings(self, step: int | None) -> dict[str, Any]:
        """Returns, as JSON, the settings that results depend on, but for examples and decoding.

        The time of saving counts: a run that went back saves another checkpoint of the same step.
        """
        data, is_run = self.config.data, self.source is None
        return {
            "step": step,
            "saved": read_commit_time(find_checkpoint(self.path, step)) if is_run else None,
            "model": dataclasses.asdict(self.config.model),
            "lengths": dict(data.task_feature_lengths),
            "vocabulary": vocabulary_fingerprints(data),
            "use_cached": data.use_cached_tasks,
            "batch_size": self.config.run.batch_size,
        }


def prepare_model(
    folder: ModelFolder,
    *,
    task: str | None = None,
    split: str | None = None,
    batch_size: int | None = None,
) -> TrainedModel:
    """Lays the model out on this machine's devices; reads no parameters.

    `task` and `split` replace those of its config. At least `batch_size` examples are computed
    together, by default those of its config; see `fit_batch`. Raises FieldError: a value is out of
    range; UserError: vocabulary or devices do not fit.
    """
    given = {"mixture_or_task_name": task, "split": split}
    config = folder.config.replace("data", **{k: x for k, x in given.items() if x is not None})
    check_vocabulary(config)
    # The mesh first: `run_on_all` starts JAX.
    mesh, source = mesh_for_inference(config, is_given=folder.mesh_is_given), folder.source
    if source is None:
        run_on_all(lambda: check_vocabularies_of_run(folder.path, config.data))
    else:
        run_on_all(lambda: source.check_model(config.model))
    config = fit_batch(config, mesh.shape, batch_size)
    parameters = abstract_state(config, mesh).parameters
    return TrainedModel(folder.path, folder.source, config, mesh, parameters)


def decoding_config(data: DataConfig, **options: Any) -> DecodingConfig:
    """Makes the config of decoding from `decoding.OPTIONS`; by default up to the targets' length.

    Where prompts have no length of their own they share that of the targets: by default half of it.
    Raises FieldError: a value is out of range, or two contradict; UserError: there is no such
    option, or no vocabulary.
    """
    check_options(options)
    lengths = data.task_feature_lengths
    is_shared, is_given = "inputs" not in lengths, options.get("max_new_tokens") is not None
    if not is_given:
        options["max_new_tokens"] = max(1, lengths["targets"] // (2 if is_shared else 1))
    eos_id = vocabularies(data)["targets"].eos_id
    decoding = DecodingConfig(eos_id=-1 if eos_id is None else eos_id, **options)
    if is_given and is_shared and decoding.max_new_tokens >= lengths["targets"]:
        raise FieldError(
            "max_new_tokens",
            f"= {decoding.max_new_tokens} leaves no room for a prompt in a row of "
            f"TASK_FEATURE_LENGTHS = {dict(lengths)}",
        )
    return decoding
