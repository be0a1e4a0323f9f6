"""The tensor files of a Hugging Face folder: safetensors or PyTorch's .bin, one or several."""

import contextlib
import dataclasses
import functools
import warnings
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from etils import epath
from safetensors import SafetensorError, safe_open

from switch_jax.conversion.source import inside, read_small_file
from switch_jax.conversion.stacked import Tensor
from switch_jax.errors import UserError, storage_error
from switch_jax.schema import Object, SchemaError, parse_json, string
from switch_jax.storage import header_here, is_file, local_copy

SAFETENSORS = "model.safetensors"
# In the order in which Hugging Face looks for them.
_FILES = (
    SAFETENSORS,
    f"{SAFETENSORS}.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_INDEX = Object(required={"weight_map": Object(others=string)})
_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_MAX_HEADER = 10**8  # bytes of a safetensors file, as its readers have it


@dataclasses.dataclass(frozen=True)
class SafetensorsTensor:
    """A tensor of a memory-mapped safetensors file; see `Tensor`.

    Attributes:
      header: safetensors' slice, which has no public type; it may have no numbers.
      numbers: returns safetensors' slice with its numbers; raises UserError if it is not there.
    """

    header: Any
    numbers: Callable[[], Any]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.header.get_shape())

    @property
    def dtype(self) -> str:
        name = self.header.get_dtype()
        return _DTYPES.get(name, name)

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        return self.numbers()[index]


@dataclasses.dataclass(frozen=True)
class TorchTensor:
    """A tensor of a .bin file, which PyTorch memory-maps; see `Tensor`."""

    tensor: Any

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.tensor.shape)

    @property
    def dtype(self) -> str:
        return str(self.tensor.dtype).removeprefix("torch.")

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        return self.tensor[index].detach().float().numpy()  # NumPy has no bfloat16


def tensor_files(folder: epath.Path) -> list[epath.Path]:
    """The files that hold the tensors.

    Raises:
      UserError: there are none, one that the index names is not there, or the index is damaged.
    """
    first = next((folder / name for name in _FILES if is_file(folder / name)), None)
    if first is None:
        raise UserError(
            f"{folder} has none of the files {', '.join(_FILES)}: download the model's tensors, too"
        )
    if first.suffix != ".json":
        return [first]
    try:
        weight_map = _INDEX.read(parse_json(read_small_file(first)))["weight_map"]
    except SchemaError as error:
        raise UserError(f"{first} is not an index of tensor files: {error}") from error
    files = [inside(folder, name) for name in sorted(set(weight_map.values()))]
    missing = [file.name for file in files if not is_file(file)]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(files)} tensor files that {first} names are not there: "
            f"{', '.join(missing[:3])}; download them, too"
        )
    return files


def open_tensors(files: list[epath.Path]) -> dict[str, Tensor]:
    """The tensors of all files by name; headers are read alone.

    Raises:
      UserError: a file is damaged or is no tensor file, a tensor is there twice, or PyTorch would
        be needed and is not installed.
    """
    tensors: dict[str, Tensor] = {}
    for file in files:
        found = _open_bin(file) if file.suffix == ".bin" else _open_safetensors(file)
        twice = tensors.keys() & found.keys()
        if twice:
            raise UserError(f"{min(twice)} is in {file} and in another of the files: remove one")
        tensors |= found
    return tensors


def _open_safetensors(file: epath.Path) -> dict[str, Tensor]:
    opened = functools.cache(lambda: safe_open(local_copy(file), "numpy"))

    def numbers(name: str) -> Any:
        with _errors_explained(file):
            return opened().get_slice(name)

    def header_size(beginning: bytes) -> int:
        return min(8 + int.from_bytes(beginning, "little"), _MAX_HEADER)

    with _errors_explained(file), header_here(file, header_size) as path:
        headers = safe_open(path, "numpy")
    return {
        name: SafetensorsTensor(headers.get_slice(name), functools.partial(numbers, name))
        for name in headers.keys()
    }


@contextlib.contextmanager
def _errors_explained(file: epath.Path) -> Iterator[None]:
    """Within, an error of opening a safetensors file becomes a UserError."""
    try:
        yield
    except OSError as error:
        raise storage_error(f"{file} cannot be read: {error.strerror or error}", error) from error
    except SafetensorError as error:
        raise UserError(
            f"{file} is not a whole safetensors file ({error}): download it again"
        ) from error


def _open_bin(file: epath.Path) -> dict[str, Tensor]:
    try:
        import torch
    except ImportError:
        raise UserError(
            f"{file} is a file of PyTorch, which is not installed: pip install torch, or take the "
            "model as safetensors"
        ) from None
    try:
        path = local_copy(file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it is about pickles that it then refuses
            # Never a pickle with code: weights_only. Files of before 2020 cannot be mapped.
            content = torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except OSError as error:
        raise storage_error(f"{file} cannot be read: {error.strerror or error}", error) from error
    except Exception as error:  # PyTorch and pickle raise errors of many types
        reason = str(error).strip().split("\n")[0].split(". ")[0] or type(error).__name__
        raise UserError(
            f"{file} is not a file of tensors that PyTorch can load without running code of it "
            f"({reason}): download it again, or take the model as safetensors"
        ) from error
    if not isinstance(content, dict) or not all(map(torch.is_tensor, content.values())):
        raise UserError(
            f"{file} holds something else than tensors by name: it is not a model's file"
        )
    for name, tensor in content.items():
        is_plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        is_plain = is_plain and not (tensor.is_quantized or tensor.is_nested)
        if not is_plain or tensor.nbytes > tensor.untyped_storage().nbytes():
            raise UserError(
                f"{file}: {name} is a tensor without a number in the file for each of its "
                f"{tensor.numel():,} elements: save it as a contiguous one"
            )
    return {str(name): TorchTensor(tensor) for name, tensor in content.items()}
