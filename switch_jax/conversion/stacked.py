"""How a parameter of ours lies in the tensors of another format.

Other formats have a tensor for each layer, and for each expert of a layer. Here one array holds a
parameter of the same layer of every block, stacked on axis 0, and of every expert, on axis 1
(`model.stack`).
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from switch_jax.config import ModelConfig


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor in a file, of which parts can be read without the rest.

    Attributes:
      shape: its sizes.
      dtype: as NumPy calls it, 'bfloat16' included.
      read: reads the part that a slice of each axis names.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[tuple[slice, ...]], np.ndarray]

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """A part of it, in its own dtype, or as float32."""
        return self.read(index)


@dataclasses.dataclass(frozen=True)
class TensorNames:
    """The names of the tensors that a parameter is stacked from.

    Attributes:
      names: str array [], [blocks] or [blocks, experts], the leading axes of the parameter.
      transposed: each tensor is [out, in], and a kernel of ours [in, out].
    """

    names: np.ndarray
    transposed: bool

    @property
    def stacked_axes(self) -> int:
        """How many leading axes of the parameter count tensors."""
        return self.names.ndim

    def to_theirs(self, array: np.ndarray) -> np.ndarray:
        """A part of one tensor as it is in the other format, or back."""
        return array.T if self.transposed else array

    def shape_of_each(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of each tensor, for a parameter of this shape."""
        rest = shape[self.stacked_axes :]
        return rest[::-1] if self.transposed else rest


def names_of_layers(
    model: ModelConfig,
    path: tuple[str, ...],
    ends_of: Callable[[ModelConfig, str, str, str, bool], list[str]],
    name: str,
    transposed: bool,
) -> TensorNames:
    """The tensors of a parameter of the layers at one place of the blocks.

    Args:
      model: whose parameter it is.
      path: the parameter's, as ('encoder', 'blocks', 'layer_0', 'feed_forward', 'wo').
      ends_of: takes the model, stack, part, leaf, and whether the layer is sparse; returns how the
        tensor's name goes on behind the layer's number: one end, or one for each expert.
      name: of a tensor, with {stack}, {layer} and {end}.
      transposed: see `TensorNames`.
    """
    stack, blocks, place, part, leaf = path
    layers = model.layers_at(stack, blocks, place)
    is_sparse = layers[0] in model.sparse_layers[stack]
    ends = ends_of(model, stack, part, leaf, is_sparse)
    names = np.array(
        [[name.format(stack=stack, layer=layer, end=end) for end in ends] for layer in layers]
    )
    has_experts = is_sparse and part == "feed_forward" and leaf != "router"
    return TensorNames(names if has_experts else names[:, 0], transposed)


def is_names(x: object) -> bool:
    """Whether it is a `TensorNames`: a leaf of the parameters' nested dict."""
    return isinstance(x, TensorNames)


class StackedTensors:
    """A parameter that is read from its tensors, in the part that it is indexed with."""

    dtype = np.dtype(np.float32)

    def __init__(self, layout: TensorNames, tensors: dict[str, Tensor]) -> None:
        self._layout, self._tensors = layout, tensors
        first = tensors[layout.names.flat[0]].shape
        self.stacked_axes = layout.stacked_axes
        self.shape = (*layout.names.shape, *(first[::-1] if layout.transposed else first))

    def __getitem__(self, index: tuple[slice, ...]) -> np.ndarray:
        """A slice of each axis -> that part, float32."""
        lead = self.stacked_axes
        names = np.asarray(self._layout.names[index[:lead]])  # [blocks, experts]
        rest = index[lead:]
        part = np.empty([*names.shape, *map(_length, rest, self.shape[lead:])], self.dtype)
        for place in np.ndindex(names.shape):
            tensor = self._tensors[str(names[place])]
            if self._layout.transposed:
                part[place] = tensor[rest[::-1]].T
            else:
                part[place] = tensor[rest]
        return part


def _length(part: slice, size: int) -> int:
    return len(range(*part.indices(size)))
