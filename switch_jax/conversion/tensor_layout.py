"""Maps each parameter of ours to the tensors of another format.

Other formats have a tensor for each layer, and for each expert of a layer. Here one array holds a
parameter of the same layer of every block, stacked on axis 0, and of every expert, on axis 1
(`model.stack`).
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from switch_jax.config import ModelConfig
from switch_jax.model import logical_axes
from switch_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor in a file, read in parts by a slice for each axis; `dtype` may be 'bfloat16'."""

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[tuple[slice, ...]], np.ndarray]

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part of the tensor, in its dtype or as float32."""
        return self.read(index)


@dataclasses.dataclass(frozen=True)
class TensorNames:
    """The names of the tensors that a parameter is stacked from.

    Attributes:
      names: str array [], [blocks] or [blocks, experts], the leading axes of the parameter.
      transposed: whether each tensor is [out, in], while a kernel of ours is [in, out].
    """

    names: np.ndarray
    transposed: bool

    @property
    def stacked_axes(self) -> int:
        """The number of leading axes of the parameter along which tensors are stacked."""
        return self.names.ndim

    def shape_of_each(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape of each tensor, for a parameter of this shape."""
        rest = shape[self.stacked_axes :]
        return rest[::-1] if self.transposed else rest


def stacked_names(
    model: ModelConfig, theirs: Mapping[str, str], transposed: Callable[[str], bool]
) -> dict[str, Any]:
    """Returns the `TensorNames` of each parameter of a model, nested as the parameters are.

    Raises UserError if the other format has no tensor for a parameter.

    Args:
      theirs: the name of a tensor for each parameter, whose name has no index in a block:
        'encoder/self_attention/query', and 'encoder/experts/wo' for a kernel of experts. In a
        tensor's name {layer} counts the layers of the stack, and {expert} its experts.
      transposed: a function of a parameter's name; see `TensorNames`.
    """
    found = {}
    for path, axes in flatten_dict(logical_axes(model)).items():
        counted, (stack, *rest) = dict[str, range](), path
        if "layers" in axes:
            blocks, layer, *rest = rest
            counted["layer"] = model.stack(stack).layers_at(blocks, layer)
        if "expert" in axes:
            counted["expert"] = range(model.num_experts)
            rest = ["experts", *rest[1:]]
        name = "/".join((stack, *rest))
        if name not in theirs:
            raise UserError(f"the other format has no tensor for the parameter {'/'.join(path)}")
        indices = itertools.product(*counted.values())
        names = [theirs[name].format(**dict(zip(counted, at, strict=True))) for at in indices]
        shape = [len(numbers) for numbers in counted.values()]
        found[path] = TensorNames(np.array(names).reshape(shape), transposed(name))
    return unflatten_dict(found)


class StackedTensors:
    """A parameter of which indexing reads a part, from the tensors that it is stacked from."""

    dtype = np.dtype(np.float32)

    def __init__(self, layout: TensorNames, tensors: dict[str, Tensor]) -> None:
        self._layout, self._tensors = layout, tensors
        first = tensors[layout.names.flat[0]].shape
        self.stacked_axes = layout.stacked_axes
        self.shape = (*layout.names.shape, *(first[::-1] if layout.transposed else first))

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """Reads a part, given by a slice of each axis, as float32."""
        lead = self.stacked_axes
        names = np.asarray(self._layout.names[index[:lead]])  # [blocks, experts]
        rest = index[lead:]
        sizes = [len(range(n)[part]) for n, part in zip(self.shape[lead:], rest, strict=True)]
        result = np.empty([*names.shape, *sizes], self.dtype)
        for at in np.ndindex(names.shape):
            tensor = self._tensors[str(names[at])]
            result[at] = tensor[rest[::-1]].T if self._layout.transposed else tensor[rest]
        return result
