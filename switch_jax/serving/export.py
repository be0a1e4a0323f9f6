"""Writes a model as a folder that `serve.py` in it runs, without switch_jax."""

import json
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import jax
import numpy as np
from etils import epath

from switch_jax.checkpointing.in_pieces import (
    open_parameters,
    storage_errors_explained,
    stored_pieces,
)
from switch_jax.checkpointing.read_only import check_part
from switch_jax.config import Config, DataConfig
from switch_jax.conversion.safetensors_header import num_bytes, safetensors_header
from switch_jax.conversion.to_run import Progress
from switch_jax.data.configured_tasks import vocabularies
from switch_jax.data.vocabularies import identity
from switch_jax.errors import UserError
from switch_jax.inference.decoding import DecodingConfig
from switch_jax.model import abstract_parameters, logical_axes
from switch_jax.partitioning.rules import STACKED, is_axes
from switch_jax.serving.program import (
    Program,
    export_program,
    parameters_by_name,
    stored_parameters,
)
from switch_jax.storage import new_folder, open_atomic
from switch_jax.tensorflow_setup import seqio

PROGRAM, PARAMETERS = "predict.bin", "parameters.safetensors"
TOKENIZER, SETTINGS, SCRIPT = "spiece.model", "settings.json", "serve.py"


def write_folder(
    target: epath.Path,
    checkpoint: epath.Path,
    config: Config,
    decoding: DecodingConfig,
    platforms: Sequence[str],
    progress: Progress,
) -> Program:
    """Writes all of the folder, or nothing.

    Args:
      target: the folder, which must not be there yet.
      checkpoint: of ours.
      config: of its run; see `program.export_program`.
      decoding: how sequences are decoded.
      platforms: where the program is to run.
      progress: shows how far it is.

    Returns:
      The program.

    Raises:
      UserError: the folder is there already or cannot be written, the checkpoint is damaged or of
        another model, or its vocabulary or a platform does not suit.
    """
    check_part(checkpoint, "parameters", abstract_parameters(config.model))
    tokenizer = _tokenizer(config.data)
    with new_folder(target) as unfinished:
        program = export_program(
            config,
            decoding,
            platforms,
            num_ids=tokenizer.vocab_size,
            unknown_id=tokenizer.unk_id,
        )
        (unfinished / PROGRAM).write_bytes(program.exported.serialize())
        (unfinished / TOKENIZER).write_bytes(tokenizer.sp_model)  # with its sentinels
        settings = {
            "batch_multiple": program.batch_multiple,
            "input_length": config.data.lengths[0],
            "decoding": decoding.describe(),
            "platforms": program.exported.platforms,
            "jax": jax.__version__,
        }
        (unfinished / SETTINGS).write_text(json.dumps(settings, indent=2) + "\n")
        (unfinished / SCRIPT).write_bytes(epath.Path(__file__).with_name(SCRIPT).read_bytes())
        _write_parameters(unfinished / PARAMETERS, checkpoint, config, progress)
    return program


def _tokenizer(data: DataConfig) -> seqio.SentencePieceVocabulary:
    """The one vocabulary of inputs and targets; raises UserError where there is no such one."""
    found = vocabularies(data)
    if identity(found["inputs"]) != identity(found["targets"]):
        raise UserError(
            f"{data.mixture_or_task_name} has one vocabulary for inputs and another for targets: "
            "an exported folder holds one tokenizer"
        )
    if not isinstance(found["targets"], seqio.SentencePieceVocabulary):
        raise UserError(
            f"the vocabulary is a {type(found['targets']).__name__}: only SentencePiece "
            "vocabularies can be exported, which run without switch_jax"
        )
    return found["targets"]


def _write_parameters(
    file: epath.Path, checkpoint: epath.Path, config: Config, progress: Progress
) -> None:
    """Writes the parameters, piece by piece, in the dtypes in which decoding computes with them."""
    shapes = abstract_parameters(config.model)
    stored = parameters_by_name(stored_parameters(config.model))
    axes = jax.tree.leaves(logical_axes(config.model), is_leaf=is_axes)
    with storage_errors_explained(f"{checkpoint} cannot be read"):
        arrays = parameters_by_name(open_parameters(checkpoint, shapes))
    total = sum(map(num_bytes, stored.values()))
    with open_atomic(file) as opened, progress(total) as advance:
        opened.write(safetensors_header(stored, {}))
        for (name, array), own_axes in zip(arrays.items(), axes, strict=True):
            stacked_axes = sum(axis in STACKED for axis in own_axes)
            _write_parameter(opened, array, stored[name].dtype, stacked_axes, checkpoint, advance)


def _write_parameter(
    file: BinaryIO,
    array: Any,
    dtype: np.dtype,
    stacked_axes: int,
    checkpoint: epath.Path,
    advance: Callable[[int], object],
) -> None:
    """Writes one parameter, from where the file is."""
    start, lead = file.tell(), array.shape[:stacked_axes]
    size = int(np.prod(array.shape[stacked_axes:])) * dtype.itemsize  # of the part of one index
    for place in stored_pieces(array, stacked_axes):
        with storage_errors_explained(f"{checkpoint} cannot be read"):
            content = array[place].read().result().astype(dtype)
        for index in np.ndindex(content.shape[:stacked_axes]):
            whole = tuple(s.start + i for s, i in zip(place, index, strict=True))
            file.seek(start + size * int(np.ravel_multi_index(whole, lead)) if lead else start)
            file.write(np.ascontiguousarray(content[index]).tobytes())
            advance(size)
    file.seek(start + size * int(np.prod(lead)))
