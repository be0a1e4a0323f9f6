"""Opens the tensor files of a Hugging Face folder: safetensors or PyTorch's .bin files."""

import functools
import warnings
import zipfile
from typing import Any

import numpy as np
from etils import epath
from safetensors import safe_open

from switch_jax.conversion.source import path_in, read_as, read_json
from switch_jax.conversion.tensor_layout import Tensor
from switch_jax.storage import is_file, local_copy, local_header
from switch_jax.utils.errors import UserError

SAFETENSORS = "model.safetensors"
# In the order in which Hugging Face looks for them.
_FILES = (
    SAFETENSORS,
    f"{SAFETENSORS}.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_MAX_HEADER = 10**8  # bytes that the safetensors package accepts as the header of a file


def tensor_files(folder: epath.Path) -> list[epath.Path]:
    """Finds the files of tensors; UserError if one is missing, or the index is damaged."""
    first = next((folder / name for name in _FILES if is_file(folder / name)), None)
    if first is None:
        raise UserError(
            f"{folder} has none of the files {', '.join(_FILES)}: download the model's tensors, too"
        )
    if first.suffix != ".json":
        return [first]
    with read_as(first, "an index of tensor files"):
        names = set(read_json(first)["weight_map"].values())
    files = [path_in(folder, name) for name in sorted(names, key=str)]
    missing = [file.name for file in files if not is_file(file)]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(files)} tensor files that {first} names are not there: "
            f"{', '.join(missing[:3])}; download them, too"
        )
    return files


def open_tensors(files: list[epath.Path]) -> dict[str, Tensor]:
    """Opens tensors by their headers; UserError if a file is damaged or PyTorch missing."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        tensors |= _open_bin(file) if file.suffix == ".bin" else _open_safetensors(file)
    return tensors


def _open_safetensors(file: epath.Path) -> dict[str, Tensor]:
    def header_size(beginning: bytes) -> int:
        return min(8 + int.from_bytes(beginning, "little"), _MAX_HEADER)

    kind = "a whole safetensors file"
    with read_as(file, kind), local_header(file, header_size) as path:
        headers = safe_open(path, "numpy")  # of a file that may have no numbers
    whole = functools.cache(lambda: safe_open(local_copy(file), "numpy"))

    def tensor(name: str) -> Tensor:
        def read(index: tuple[slice, ...]) -> np.ndarray:
            with read_as(file, kind):
                numbers = whole().get_slice(name)
            return numbers[index]

        header = headers.get_slice(name)
        dtype = header.get_dtype()
        return Tensor(tuple(header.get_shape()), _DTYPES.get(dtype, dtype), read)

    return {name: tensor(name) for name in headers.keys()}


def _open_bin(file: epath.Path) -> dict[str, Tensor]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{file} is a file of PyTorch, which is not installed: pip install torch, or take the "
            "model as safetensors"
        ) from None
    kind = "a file of tensors that PyTorch can load without running code of it"
    with read_as(file, kind), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns of pickles that it then refuses
        path = local_copy(file)
        # Never a pickle with code: weights_only. Files of before 2020 cannot be mapped.
        content = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    if not isinstance(content, dict) or not all(map(torch.is_tensor, content.values())):
        raise UserError(
            f"{file} holds something else than tensors by name: it is not a model's file"
        )
    return {str(name): _torch_tensor(tensor) for name, tensor in content.items()}


def _torch_tensor(tensor: Any) -> Tensor:
    """Wraps a tensor of PyTorch, whose file is mapped into memory."""

    def read(index: tuple[slice, ...]) -> np.ndarray:
        return tensor[index].detach().float().numpy()  # NumPy has no bfloat16

    return Tensor(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."), read)
