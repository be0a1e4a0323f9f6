"""switch_jax from Python: what the commands do, as functions; `switch_jax` offers them.

As in `cli`, gin is read here. What it had parsed before is put back afterwards.
"""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax

from switch_jax.checkpointing import chosen_step, load_parameters
from switch_jax.cli import gin_config
from switch_jax.cli.convert import gin_of_source
from switch_jax.config import Config
from switch_jax.conversion.formats import open_source
from switch_jax.conversion.hugging_face.tokenizer import sentencepiece_file
from switch_jax.conversion.source import Source
from switch_jax.data.checks import check_vocabularies_of_run
from switch_jax.errors import UserError
from switch_jax.inference.interactive import InteractiveModel
from switch_jax.inference.routing import route
from switch_jax.inference.trained_model import decoding_config, prepare_model
from switch_jax.partitioning.mesh import MeshError
from switch_jax.paths import is_file, local_path, no_model_there
from switch_jax.run_folder import RunFolder

__all__ = ["load", "route"]


def load(
    path: str | Path,
    checkpoint: str | int = "latest",
    *,
    batch_size: int | None = None,
    gin_bindings: Sequence[str] = (),
) -> InteractiveModel:
    """Loads a model onto this machine's devices.

        model = switch_jax.load("runs/tuned")
        model.generate(["trivia question: ..."])
        model.score(["..."], ["..."])

    Args:
      path: the MODEL_DIR of a run, the folder of a Hugging Face model, or a T5X checkpoint.
      checkpoint: of a run: 'latest', 'best', or a step.
      batch_size: number of texts that are computed together; None: BATCH_SIZE of the config.
      gin_bindings: changes of the config, as in ["MESH_DATA=1"].

    Raises:
      UserError: there is no such model, or its config does not fit this machine.
    """
    folder = local_path(path, "path").absolute()
    if not os.path.exists(folder):
        raise no_model_there(path)
    source = open_source(folder)  # first: the folder of a T5X model has a config.gin of T5X
    if source is not None:
        if checkpoint != "latest":
            raise UserError(f"{path} is one model, without checkpoints: leave out {checkpoint!r}")
        config = _config_of_source(source, gin_bindings)
        source.check_model(config.model)
    elif is_file(RunFolder(folder).config):
        config = _config_of_run(folder, gin_bindings)
    else:
        raise UserError(
            f"{path} holds no model: a MODEL_DIR has a config.gin, a Hugging Face folder a "
            "config.json, and a T5X checkpoint a file named checkpoint"
        )
    if batch_size is not None:
        config = config.replace("run", batch_size=batch_size)
    try:
        trained = prepare_model(folder, config, decoding_config(config.data))
    except MeshError as error:  # a process makes its virtual CPU devices once, for its first model
        data = 1 if jax.default_backend() == "cpu" else None  # None: all there are
        raise UserError(
            f'{error}; give gin_bindings=["MESH_DATA={data}", "MESH_EXPERT=1", "MESH_MODEL=1"]'
        ) from error
    with jax.set_mesh(trained.mesh):
        if source is not None:
            return InteractiveModel(trained, source.load(trained.parameters))
        check_vocabularies_of_run(folder, config.data, lambda: _config_of_run(folder, ()))
        step = chosen_step(folder, str(checkpoint))
        return InteractiveModel(trained, load_parameters(folder, trained.parameters, step))


def _config_of_run(folder: Path, bindings: Sequence[str]) -> Config:
    file = str(RunFolder(folder).config)
    return gin_config.read([file], bindings, unneeded=["MODEL_DIR"])


def _config_of_source(source: Source, bindings: Sequence[str]) -> Config:
    """The config that `switch_jax convert` would write."""
    file = sentencepiece_file(source.folder, source.architecture["num_embeddings"])
    name = str(file) if file else source.vocabulary
    files, own_bindings = gin_of_source(source, source.path, name)
    config = gin_config.read(files, [*own_bindings, *bindings])
    if not file and config.data.vocabulary == name:
        warnings.warn(
            f"{source.folder} has no spiece.model, so VOCABULARY is {name!r}: check that the model "
            'was trained with it, or give gin_bindings=["VOCABULARY=PATH"]',
            stacklevel=3,
        )
    return config
