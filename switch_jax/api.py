"""switch_jax from Python: what the commands do, as functions; `switch_jax` offers them.

As in `cli`, gin is read here; nothing of it stays behind.
"""

from collections.abc import Sequence
from pathlib import Path

import jax

from switch_jax.checkpointing import chosen_step, load_parameters
from switch_jax.cli import gin_config
from switch_jax.cli.convert import gin_of_folder
from switch_jax.config import Config
from switch_jax.conversion import hugging_face
from switch_jax.conversion.hugging_face.folder import read_architecture
from switch_jax.conversion.hugging_face.tokenizer import sentencepiece_file, vocabulary_name
from switch_jax.errors import UserError
from switch_jax.inference.interactive import InteractiveModel
from switch_jax.inference.trained_model import (
    check_vocabularies_of_run,
    decoding_config,
    prepare_model,
)
from switch_jax.paths import is_file, local_path
from switch_jax.run_folder import RunFolder


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
      path: the MODEL_DIR of a run, or the folder of a Hugging Face model.
      checkpoint: of a run: 'latest', 'best', or a step.
      batch_size: how many texts are computed together; None: as many as the config says.
      gin_bindings: changes of the config, as in ["MESH_DATA=1"].

    Raises:
      UserError: there is no such model, or its config does not fit this machine.
    """
    folder = local_path(path, "path").absolute()
    if not folder.is_dir():
        raise UserError(f"there is no folder {path}: give a MODEL_DIR, or a Hugging Face folder")
    is_run = is_file(RunFolder(folder).config)
    if is_run:
        config = _config_of_run(folder, gin_bindings)
    elif hugging_face.is_hugging_face(folder):
        if checkpoint != "latest":
            raise UserError(f"{path} is one model, without checkpoints: leave out {checkpoint!r}")
        config = _config_of_hugging_face(folder, gin_bindings)
    else:
        raise UserError(
            f"{path} holds no model: a MODEL_DIR has a config.gin, and a Hugging Face folder a "
            "config.json"
        )
    if batch_size is not None:
        config = config.replace("run", batch_size=batch_size)
    trained = prepare_model(folder, config, decoding_config(config.data))
    with jax.set_mesh(trained.mesh):
        if is_run:
            check_vocabularies_of_run(folder, config.data, lambda: _config_of_run(folder, ()))
            step = chosen_step(folder, str(checkpoint))
            parameters = load_parameters(folder, trained.parameters, step)
        else:
            parameters = hugging_face.load_parameters(folder, config.model, trained.parameters)
    return InteractiveModel(trained, parameters)


def _config_of_run(folder: Path, bindings: Sequence[str]) -> Config:
    file = str(RunFolder(folder).config)
    return gin_config.read([file], bindings, unneeded=["MODEL_DIR"])


def _config_of_hugging_face(folder: Path, bindings: Sequence[str]) -> Config:
    """The config that `switch_jax convert` would write."""
    architecture = read_architecture(folder)
    file = sentencepiece_file(folder, architecture["num_embeddings"])
    name = str(file) if file else vocabulary_name(folder)
    files, own_bindings = gin_of_folder(architecture, folder, name)
    return gin_config.read(files, [*own_bindings, *bindings])
