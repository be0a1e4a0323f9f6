"""Writes a checkpoint of ours as a Hugging Face folder, one tensor after the other."""

import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from switch_jax.checkpointing.integrity import storage_errors_explained
from switch_jax.checkpointing.read_only import check_part
from switch_jax.checkpointing.streaming import open_parameters, stored_chunks
from switch_jax.config import ModelConfig
from switch_jax.conversion.hugging_face.family import Family
from switch_jax.conversion.hugging_face.model_config import CONFIG, MODEL_TYPES
from switch_jax.conversion.hugging_face.tensor_files import SAFETENSORS
from switch_jax.conversion.tensor_layout import TensorNames
from switch_jax.conversion.to_run import Progress
from switch_jax.model import abstract_parameters
from switch_jax.storage import new_folder, open_atomic

MAX_SHARD_BYTES = 5 * 10**9  # of a file, unless one tensor is larger

Shapes = dict[str, tuple[int, ...]]  # of tensors, by name
# Tensors of a parameter that share a stored chunk and are read at once: their names, the
# `TensorStore` of the parameter, and slices of its leading axes.
Piece = tuple[TensorNames, Any, tuple[slice, ...]]


def write_folder(
    target: epath.Path,
    checkpoint: epath.Path,
    model: ModelConfig,
    config_json: Mapping[str, Any],
    tokenizer_files: Mapping[str, bytes],
    progress: Progress,
) -> None:
    """Writes all of the folder, or nothing, from a checkpoint of ours.

    The contents are from `model_config.config_json` and `tokenizer.tokenizer_files`. Raises
    UserError if the folder is there already or cannot be written, or the checkpoint is damaged, or
    of another model.
    """
    abstract = abstract_parameters(model)
    check_part(checkpoint, "parameters", abstract)
    family = MODEL_TYPES[config_json["model_type"]].family
    described = {"generation_config.json": _json(family.generation), CONFIG: _json(config_json)}
    with new_folder(target) as unfinished:
        for name, content in {**tokenizer_files, **described}.items():
            (unfinished / name).write_bytes(content)
        with storage_errors_explained(f"{checkpoint} cannot be read"):
            arrays = open_parameters(checkpoint, abstract)
        pieces = list(_pieces(family, model, arrays))
        shapes = {
            str(name): layout.shape_of_each(array.shape)
            for layout, array, index in pieces
            for name in np.ravel(layout.names[index])
        }
        with progress(sum(map(_num_bytes, shapes.values()))) as advance:
            tensors = _read(pieces, checkpoint, advance)
            _write_shards(unfinished, _shards(shapes, MAX_SHARD_BYTES), tensors)


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _num_bytes(shape: tuple[int, ...]) -> int:
    return 4 * math.prod(shape)  # float32


def _pieces(family: Family, model: ModelConfig, arrays: Any) -> Iterator[Piece]:
    layouts = jax.tree.leaves(family.tensor_names(model))
    pairs = list(zip(layouts, jax.tree.leaves(arrays), strict=True))
    table = arrays["token_embedding"]["embedding"]
    for name in family.table_names(model):
        pairs.append((TensorNames(np.array(name), transposed=False), table))
    for layout, array in pairs:
        for index in stored_chunks(array, layout.stacked_axes):
            yield layout, array, index


def _read(
    pieces: list[Piece], checkpoint: epath.Path, advance: Callable[[int], object]
) -> Iterator[np.ndarray]:
    """Reads the tensors of the pieces, in the form of Hugging Face."""
    for layout, array, index in pieces:
        with storage_errors_explained(f"{checkpoint} cannot be read"):
            content = array[index].read().result()
        for at in np.ndindex(content.shape[: layout.stacked_axes]):
            advance(content[at].nbytes)
            yield content[at].T if layout.transposed else content[at]


def _shards(shapes: Shapes, max_bytes: int) -> list[Shapes]:
    """Distributes the tensors over files, in their order."""
    shards: list[Shapes] = [{}]
    size = 0
    for name, shape in shapes.items():
        size += _num_bytes(shape)
        if shards[-1] and size > max_bytes:
            shards.append({})
            size = _num_bytes(shape)
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
            file.write(_safetensors_header(shapes))
            for tensor in itertools.islice(tensors, len(shapes)):
                file.write(np.ascontiguousarray(tensor, "<f4").data)
    if len(shards) > 1:
        total = sum(_num_bytes(shape) for shapes in shards for shape in shapes.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (folder / f"{SAFETENSORS}.index.json").write_bytes(_json(index))


def _safetensors_header(shapes: Shapes) -> bytes:
    """Makes the header of a safetensors file: its size, then JSON padded to a multiple of 8 bytes.

    The writer of the safetensors package needs all tensors of a file at once.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + _num_bytes(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text
