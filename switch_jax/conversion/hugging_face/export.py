"""Writes a checkpoint of ours as a Hugging Face folder, one tensor after the other."""

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath

from switch_jax.checkpointing.in_pieces import open_parameters, stored_pieces
from switch_jax.checkpointing.integrity import storage_errors_explained
from switch_jax.checkpointing.read_only import check_part
from switch_jax.config import ModelConfig
from switch_jax.conversion.hugging_face.model_config import CONFIG, SPECIAL_TOKENS
from switch_jax.conversion.hugging_face.tensor_files import SAFETENSORS
from switch_jax.conversion.hugging_face.tensor_names import TABLE_ALIASES, tensor_names
from switch_jax.conversion.safetensors_header import num_bytes, safetensors_header
from switch_jax.conversion.stacked import TensorNames, is_names
from switch_jax.conversion.to_run import Progress
from switch_jax.model import abstract_parameters
from switch_jax.storage import new_folder, open_atomic

GENERATION_CONFIG = "generation_config.json"
MAX_SHARD_BYTES = 5 * 10**9  # of a file, unless one tensor is larger

Shapes = dict[str, jax.ShapeDtypeStruct]  # of tensors, by name


def write_folder(
    target: epath.Path,
    checkpoint: epath.Path,
    model: ModelConfig,
    config_json: Mapping[str, Any],
    tokenizer_files: Mapping[str, bytes],
    progress: Progress,
) -> None:
    """Writes all of the folder, or nothing.

    Args:
      target: the folder, which must not be there yet.
      checkpoint: of ours.
      model: its config.
      config_json: from `model_config.config_json`.
      tokenizer_files: from `tokenizer.tokenizer_files`.
      progress: shows how far it is.

    Raises:
      UserError: the folder is there already or cannot be written, or the checkpoint is damaged, or
        of another model.
    """
    shapes = abstract_parameters(model)
    check_part(checkpoint, "parameters", shapes)
    with new_folder(target) as unfinished:
        for name, content in tokenizer_files.items():
            (unfinished / name).write_bytes(content)
        generation = json.dumps(SPECIAL_TOKENS, indent=2) + "\n"
        (unfinished / GENERATION_CONFIG).write_text(generation)
        (unfinished / CONFIG).write_text(json.dumps(config_json, indent=2) + "\n")
        with storage_errors_explained(f"{checkpoint} cannot be read"):
            arrays = open_parameters(checkpoint, shapes)
        pieces = list(_pieces(model, tensor_names(model, shapes), arrays))
        tensor_shapes = {
            str(name): jax.ShapeDtypeStruct(
                piece.layout.shape_of_each(piece.array.shape), np.float32
            )
            for piece in pieces
            for name in piece.names.flat
        }
        with progress(sum(map(num_bytes, tensor_shapes.values()))) as advance:
            tensors = _read(pieces, checkpoint, advance)
            _write_shards(unfinished, _shards(tensor_shapes, MAX_SHARD_BYTES), tensors)


class _Piece(NamedTuple):
    """A part of a parameter that is read at once: the tensors that share a stored chunk.

    Attributes:
      layout: of the parameter.
      array: the parameter, a `TensorStore`.
      place: slices of its leading axes.
      names: of the tensors in this part, by those axes.
    """

    layout: TensorNames
    array: Any
    place: tuple[slice, ...]
    names: np.ndarray


def _pieces(model: ModelConfig, names: Any, arrays: Any) -> Iterator[_Piece]:
    layouts = jax.tree.leaves(names, is_leaf=is_names)
    pairs = list(zip(layouts, jax.tree.leaves(arrays), strict=True))
    if model.num_experts and not model.tie_embeddings:
        # Its Switch Transformers tie the tables of the stacks only together with the logits.
        table = arrays["token_embedding"]["embedding"]
        pairs += [(TensorNames(np.array(name), transposed=False), table) for name in TABLE_ALIASES]
    for layout, array in pairs:
        for place in stored_pieces(array, layout.stacked_axes):
            yield _Piece(layout, array, place, np.asarray(layout.names[place]))


def _read(
    pieces: list[_Piece], checkpoint: epath.Path, advance: Callable[[int], object]
) -> Iterator[np.ndarray]:
    """The tensors of the pieces, in the form of Hugging Face."""
    for piece in pieces:
        with storage_errors_explained(f"{checkpoint} cannot be read"):
            content = piece.array[piece.place].read().result()
        for place in np.ndindex(piece.names.shape):
            advance(content[place].nbytes)
            yield piece.layout.to_theirs(content[place])


def _shards(shapes: Shapes, max_bytes: int) -> list[Shapes]:
    """The tensors of each file, in their order."""
    shards: list[Shapes] = [{}]
    size = 0
    for name, shape in shapes.items():
        size += num_bytes(shape)
        if shards[-1] and size > max_bytes:
            shards.append({})
            size = num_bytes(shape)
        shards[-1][name] = shape
    return shards


def _write_shards(folder: epath.Path, shards: list[Shapes], tensors: Iterator[np.ndarray]) -> None:
    """Writes model.safetensors, or model-0000i-of-0000N.safetensors and their index."""
    weight_map: dict[str, str] = {}
    for number, shapes in enumerate(shards, 1):
        name = SAFETENSORS
        if len(shards) > 1:
            name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        weight_map |= dict.fromkeys(shapes, name)
        with open_atomic(folder / name) as file:
            file.write(safetensors_header(shapes, {"format": "pt"}))
            for tensor in itertools.islice(tensors, len(shapes)):
                file.write(np.ascontiguousarray(tensor, "<f4").data)
    if len(shards) > 1:
        total = sum(num_bytes(shape) for shapes in shards for shape in shapes.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / f"{SAFETENSORS}.index.json").write_text(json.dumps(index, indent=2) + "\n")
