"""Reads and writes a checkpoint's parameters in pieces, since a model may be larger than memory.

Orbax accepts whole arrays only; TensorStore, with which it stores them, accepts parts of them.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import tensorstore as ts
from etils import epath
from orbax.checkpoint import v1 as ocp

from switch_jax.checkpointing import orbax_patches
from switch_jax.checkpointing.integrity import add_checksum
from switch_jax.checkpointing.metadata import ARRAYS

_CONTENT = "parameters"
_CACHE_BYTES = 100_000_000  # of the database's index


def create_checkpoint(checkpoint: epath.Path, abstract_parameters: Any, stacked_axes: Any) -> None:
    """Makes a checkpoint that holds parameters alone, all of them zero, in a folder not there yet.

    `stacked_axes` are, for each array of `abstract_parameters`, the leading axes along which it is
    written in pieces of one.
    """
    orbax_patches.apply()
    # One zero, seen as an array of the whole shape: it takes no memory, and compressed no space.
    zeros = jax.tree.map(lambda s: np.broadcast_to(np.float32(0), s.shape), abstract_parameters)

    def storage(path: Any, value: np.ndarray) -> Any:
        """Makes each chunk a piece."""
        axes = stacked_axes
        for key in path[1:]:
            axes = axes[key.key]
        piece = math.prod(value.shape[axes:]) * value.itemsize
        return ocp.options.ArrayOptions.Saving.StorageOptions(
            chunk_byte_size=piece, shard_axes=tuple(range(axes))
        )

    context = ocp.Context()
    context.memory.deepcopy_host_arrays = False
    context.array.saving.scoped_storage_options_creator = storage
    notes = add_checksum({"notes": {}, "value": None, "value_of": None})
    with context, orbax_patches.without_logs():
        ocp.save(checkpoint, {_CONTENT: zeros}, custom_metadata=notes)


def open_parameters(
    checkpoint: epath.Path, abstract_parameters: Any, *, write: bool = False
) -> Any:
    """Opens the parameters as nested TensorStores, of which parts can be read, and written too.

    `read_only.check_part` has checked them; `abstract_parameters` is a nested dict of shapes.
    """

    # One for all: writes to the database follow each other, and none has to be made again.
    context = ts.Context({"cache_pool": {"total_bytes_limit": _CACHE_BYTES}})

    def opened(path: Any, _: Any) -> ts.TensorStore:
        name = ".".join([_CONTENT, *(key.key for key in path)])
        database = {"driver": "ocdbt", "base": (checkpoint / ARRAYS).as_uri() + "/"}
        spec = {"driver": "zarr3", "kvstore": {**database, "path": f"{name}/"}}
        return ts.open(spec, open=True, read=True, write=write, context=context).result()

    return jax.tree_util.tree_map_with_path(opened, abstract_parameters)


def stored_chunks(array: ts.TensorStore, stacked_axes: int) -> Iterator[tuple[slice, ...]]:
    """Yields slices of the leading axes that cover the array and read each stored chunk once."""
    chunk = array.chunk_layout.read_chunk.shape or ()
    steps = [step or 1 for step in chunk[:stacked_axes]]
    starts = [range(0, size, step) for size, step in zip(array.shape, steps, strict=False)]
    for start in itertools.product(*starts):
        yield tuple(slice(s, s + step) for s, step in zip(start, steps, strict=True))
