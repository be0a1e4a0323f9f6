"""Opens the arrays of a T5X checkpoint: those in its msgpack file, and those in Zarr folders."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorstore as ts
from etils import epath

from switch_jax.checkpointing.integrity import storage_errors_explained
from switch_jax.conversion.source import path_in
from switch_jax.conversion.t5x.msgpack_file import is_spec
from switch_jax.conversion.tensor_layout import Tensor
from switch_jax.storage import is_folder
from switch_jax.utils.errors import UserError

_PLACEHOLDER = "PLACEHOLDER://"  # Orbax's; the name of a folder follows


def open_tensors(folder: epath.Path, leaves: dict[str, Any]) -> dict[str, Tensor]:
    """Opens the tensors of a msgpack file's leaves; UserError if one is missing or damaged."""
    # Decoded chunks are kept: one of up to 64 MB holds several layers or experts, which are read
    # one after the other.
    context = ts.Context({"cache_pool": {"total_bytes_limit": 2**29}})
    return {name: _open(folder, name, leaf, context) for name, leaf in leaves.items()}


def _open(folder: epath.Path, name: str, leaf: Any, context: ts.Context) -> Tensor:
    if isinstance(leaf, np.ndarray | np.generic | int | float):
        array = np.asarray(leaf)
        return Tensor(array.shape, array.dtype.name, array.__getitem__)
    if is_spec(leaf):
        # In a bucket's spec the path is a key by itself. The bucket and the folders in it are those
        # where the checkpoint was written.
        paths = (leaf.get("path"), leaf["kvstore"].get("path"))
        path = next((path for path in paths if isinstance(path, str) and path), None)
        described = {key: leaf[key] for key in ("dtype", "metadata") if key in leaf}
        if leaf["driver"] == "zarr" and path is not None:
            return _open_zarr(path_in(folder, path), described, context)
    elif isinstance(leaf, str) and leaf.startswith(_PLACEHOLDER):
        return _open_zarr(path_in(folder, leaf.removeprefix(_PLACEHOLDER)), {}, context)
    raise UserError(f"{folder}: {name} is neither an array nor the description of a Zarr array")


def _open_zarr(folder: epath.Path, described: dict[str, Any], context: ts.Context) -> Tensor:
    """Opens an array; `described` has shape, dtype and chunks as in the msgpack file."""
    if not is_folder(folder):
        hint = "copy the whole folder of the checkpoint"
        if (folder.parent / "manifest.ocdbt").is_file():
            hint = "it lies in an OCDBT database, which is not read: save it with T5X's own format"
        raise UserError(f"{folder.parent} has no folder {folder.name}: {hint}")
    spec = {
        "driver": "zarr",
        "kvstore": f"{folder.as_uri()}/",
        "fill_missing_data_reads": False,  # a missing chunk is an error, and not zeros
        **described,
    }
    # The msgpack file says the same as .zarray, which copying a folder's * leaves behind.
    without_header = bool(described) and not (folder / ".zarray").is_file()
    with storage_errors_explained(f"{folder} cannot be read"):
        store = ts.open(
            spec, open=True, read=True, assume_metadata=without_header, context=context
        ).result()

    def read(index: tuple[slice, ...]) -> np.ndarray:
        with storage_errors_explained(f"{folder} cannot be read"):
            return store[index].read().result()

    return Tensor(tuple(store.shape), store.dtype.name, read)


def unstack(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Cuts tensors of several layers or experts into one for each.

    T5X stacks the layers that it scans over on axis 1, under encoder/encoder or decoder/decoder; in
    sparse models these are blocks of layers, subblock_0, subblock_1, ... They get names such as
    encoder/layers_3/...; the names of experts' kernels end with the number of the expert.
    """
    return dict(_unstack_experts(dict(_unstack_layers(tensors))))


def _unstack_layers(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    scanned = {
        name: match
        for name, tensor in tensors.items()
        if (match := re.fullmatch(r"(encoder|decoder)/\1/(?:subblock_(\d+)/)?(.+)", name))
        and len(tensor.shape) > 1
    }
    layers: dict[str, set[int]] = {}  # the numbers of layers within a block, by stack
    for stack, within, _ in (match.groups() for match in scanned.values()):
        layers.setdefault(stack, set()).add(int(within or 0))
    for name, tensor in tensors.items():
        if name not in scanned:
            yield name, tensor
            continue
        stack, within, rest = scanned[name].groups()
        for block in range(tensor.shape[1]):
            layer = block * len(layers[stack]) + int(within or 0)
            yield f"{stack}/layers_{layer}/{rest}", _index_axis(tensor, 1, block)


def _unstack_experts(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    for name, tensor in tensors.items():
        if "/mlp/expert/" in name and tensor.shape:
            for expert in range(tensor.shape[0]):
                yield f"{name}/{expert}", _index_axis(tensor, 0, expert)
        else:
            yield name, tensor


def _index_axis(tensor: Tensor, axis: int, position: int) -> Tensor:
    """Returns the part of a tensor at one position of an axis, without that axis."""

    def read(index: tuple[slice, ...]) -> np.ndarray:
        here = slice(position, position + 1)
        return tensor[(*index[:axis], here, *index[axis:])].squeeze(axis)

    shape = tensor.shape
    return Tensor((*shape[:axis], *shape[axis + 1 :]), tensor.dtype, read)
