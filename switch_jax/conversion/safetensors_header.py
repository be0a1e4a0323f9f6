"""What a safetensors file begins with; its own writer takes all tensors of a file at once."""

import json
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

_DTYPES = {"float32": "F32", "bfloat16": "BF16"}


def safetensors_header(
    tensors: Mapping[str, jax.ShapeDtypeStruct], metadata: Mapping[str, str]
) -> bytes:
    """The header of a file in which these tensors follow one another, in their order.

    It is JSON padded to a multiple of 8 bytes, after its size.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name, tensor in tensors.items():
        start, end = end, end + num_bytes(tensor)
        dtype = _DTYPES[np.dtype(tensor.dtype).name]
        header[name] = {"dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def num_bytes(tensor: jax.ShapeDtypeStruct) -> int:
    """The size of a tensor in a file."""
    return tensor.size * np.dtype(tensor.dtype).itemsize
