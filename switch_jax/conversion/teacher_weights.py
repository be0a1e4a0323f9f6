"""A student's first weights: those of its teacher, wherever both models have the same tensor.

Section 4.2: "initializing the dense model with the non-expert weights" of the sparse one.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from switch_jax.config import ModelConfig
from switch_jax.model import abstract_parameters, logical_axes

Path = tuple[str, ...]

# The settings that must agree for a tensor to mean the same in both models, by a part of its path.
# Its shape does not tell: heads are flattened, and a bucket of distances is an index.
_SETTINGS = {
    "self_attention": ("num_heads", "head_dim"),
    "cross_attention": ("num_heads", "head_dim"),
    "relative_position_bias": ("relative_position_max_distance",),
    "wi_0": ("activation",),
    "wi_1": ("activation",),
    "wo": ("activation",),
    "token_embedding": ("tie_embeddings",),
}


class _Tensor(NamedTuple):
    """A parameter, or one layer of a parameter that is stacked over the blocks.

    Attributes:
      path: the parameter's.
      block: the layer's index in it; None: it is no layer's.
      shape, axes: without the stacked axis of layers.
      settings: values of the model's `_SETTINGS` for it.
    """

    path: Path
    block: int | None
    shape: tuple[int, ...]
    axes: tuple[str, ...]
    settings: tuple[object, ...]


class TeacherWeights:
    """Which tensors a student takes from its teacher.

    It takes each that has the same name, counted by the number of the layer, the same shape and the
    same meaning in both models, except those of experts. So the models may have their Switch layers
    at different places, and different numbers of layers. The meaning is the same where these agree:
    of attention num_heads and head_dim, of feed-forward layers the activation, of the relative
    position bias relative_position_max_distance, and of the embedding tie_embeddings.

    Attributes:
      taken, drawn: names of the student's tensors that it takes, and of the others, as
        'encoder/layer_3/self_attention/query'.
    """

    def __init__(self, student: ModelConfig, teacher: ModelConfig) -> None:
        self._own, self._theirs = _tensors(student), _tensors(teacher)
        self.taken = [name for name in self._own if self._is_taken(name)]
        self.drawn = [name for name in self._own if not self._is_taken(name)]

    def _is_taken(self, name: str) -> bool:
        own, theirs = self._own[name], self._theirs.get(name)
        if theirs is None or "expert" in own.axes:
            return False
        return (own.shape, own.axes, own.settings) == (theirs.shape, theirs.axes, theirs.settings)

    def needed(self, teacher: Any) -> dict[str, Any]:
        """The part of the teacher's parameters, a nested dict, that tensors are taken from."""
        leaves = flatten_dict(teacher)
        return unflatten_dict({path: leaves[path] for path in self._needed_paths()})

    def _needed_paths(self) -> set[Path]:
        return {self._theirs[name].path for name in self.taken}

    def apply(self, drawn: Any, teacher: Any) -> dict[str, Any]:
        """The student's parameters at the start.

        Args:
          drawn: nested dict of all its parameters, as they are without a teacher.
          teacher: nested dict of those of the teacher's that are `needed`.
        """
        given = flatten_dict(teacher)
        values: dict[Path, dict[int | None, jax.Array]] = {}
        for name in self.taken:
            own, (path, block, *_) = self._own[name], self._theirs[name]
            value = given[path] if block is None else given[path][block]
            values.setdefault(own.path, {})[own.block] = value

        def start(path: Path, drawn: jax.Array) -> jax.Array:
            taken = values.get(path, {})
            if None in taken or not taken:
                return taken.get(None, drawn)
            return jnp.stack([taken.get(block, drawn[block]) for block in range(len(drawn))])

        return unflatten_dict({path: start(path, x) for path, x in flatten_dict(drawn).items()})


def in_words(names: Iterable[str]) -> str:
    """Names of tensors, with those of several layers as one: 'encoder/layer_{0,2}/norm/scale'."""
    layers: dict[tuple[str, str], list[str]] = {}
    for name in names:
        stack, is_of_layer, rest = name.partition("/layer_")
        layer, _, part = rest.partition("/")
        layers.setdefault((stack, part), []).extend([layer] if is_of_layer else [])
    return ", ".join(
        f"{stack}/layer_{{{','.join(numbers)}}}/{part}" if numbers else stack
        for (stack, part), numbers in layers.items()
    )


def _tensors(model: ModelConfig) -> dict[str, _Tensor]:
    """The tensors of a model by name."""
    axes_by_path = flatten_dict(logical_axes(model))
    tensors = {}
    for path, array in flatten_dict(abstract_parameters(model)).items():
        axes = axes_by_path[path]
        names = [name for part in path for name in _SETTINGS.get(part, ())]
        settings = tuple(getattr(model, name) for name in names)
        if axes[0] != "layers":
            tensors["/".join(path)] = _Tensor(path, None, array.shape, axes, settings)
            continue
        stack, blocks, place, *part = path
        for block, layer in enumerate(model.layers_at(stack, blocks, place)):
            name = "/".join([stack, f"layer_{layer}", *part])
            tensors[name] = _Tensor(path, block, array.shape[1:], axes[1:], settings)
    return tensors
