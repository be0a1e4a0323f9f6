"""Writes the folder of a run from tensors of another format, one tensor after the other."""

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpy as np
from etils import epath

from switch_jax.checkpointing.integrity import storage_errors_explained
from switch_jax.checkpointing.streaming import create_checkpoint, open_parameters
from switch_jax.config import Config
from switch_jax.conversion.tensor_layout import StackedTensors
from switch_jax.model.flops import flops_per_token
from switch_jax.run_folder import RunFolder, write_description
from switch_jax.storage import new_folder, read_bytes

# Given the total of bytes, returns a context with a function to call for each number of bytes.
Progress = Callable[[int], AbstractContextManager[Callable[[int], object]]]


def write_run(
    model_dir: epath.Path,
    parameters: Any,
    config: Config,
    config_text: str,
    origin: epath.Path,
    vocabulary_file: epath.Path | None,
    fingerprints: Mapping[str, str],
    progress: Progress,
) -> None:
    """Writes a folder that `eval` and `infer` accept, and `train` as INITIAL_CHECKPOINT_PATH.

    All of it is written, or nothing. Raises UserError if it is there already, or that fails.

    `parameters` are nested `StackedTensors` of the model's shapes, from `origin`. `config`, with
    `config_text` as gin, is how `eval` and `infer` use them. `vocabulary_file` is a SentencePiece
    model; `fingerprints` are of each feature's vocabulary, empty where they are not known.
    """
    total = sum(math.prod(stacked.shape) for stacked in jax.tree.leaves(parameters))
    stacked_axes = jax.tree.map(lambda stacked: stacked.stacked_axes, parameters)
    with new_folder(model_dir) as unfinished:
        folder = RunFolder(unfinished)
        if vocabulary_file is not None:
            folder.vocabulary.write_bytes(read_bytes(vocabulary_file))
        facts = {
            "name": model_dir.name,
            "parameters": total,
            "num_experts": config.model.num_experts,
            "flops_per_token": flops_per_token(config.model, config.data.task_feature_lengths),
            "vocabulary": dict(fingerprints),
        }
        write_description(folder, facts, origin, config, config_text)
        checkpoint = folder.checkpoint(0)  # no step of ours made it
        explained = storage_errors_explained(f"{model_dir} cannot be written")
        with explained, progress(4 * total) as advance:
            create_checkpoint(checkpoint, parameters, stacked_axes)
            arrays = open_parameters(checkpoint, parameters, write=True)
            jax.tree.map(lambda a, stacked: _copy(stacked, a, advance), arrays, parameters)


def _copy(stacked: StackedTensors, array: Any, advance: Callable[[int], object]) -> None:
    axes = stacked.stacked_axes
    rest = (slice(None),) * (len(stacked.shape) - axes)
    for first in np.ndindex(stacked.shape[:axes]):
        index = (*(slice(i, i + 1) for i in first), *rest)
        piece = stacked[index]
        array[index].write(piece).result()
        advance(piece.nbytes)
