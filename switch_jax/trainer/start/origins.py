"""Where each array of a model comes from, when its run starts from weights that are there."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from switch_jax.config import ModelConfig
from switch_jax.model.parameter_names import (
    first_matches,
    parameter_axes,
    parameter_group,
    parameter_shapes,
)
from switch_jax.utils.differences import differences
from switch_jax.utils.errors import UserError

# The settings that must agree for a parameter to mean the same in two models, by a part of its
# name. Its shape does not tell: heads are flattened, and a bucket of distances is an index.
_HEADS = ("NUM_HEADS", "NUM_KEY_VALUE_HEADS", "HEAD_DIM", "QK_NORM", "POSITIONS")
_SETTINGS = {
    "self_attention": (*_HEADS, "ROTARY_BASE"),
    "cross_attention": _HEADS,
    "relative_position_bias": ("RELATIVE_POSITION_MAX_DISTANCE",),
    "wi_0": ("ACTIVATION",),
    "wi_1": ("ACTIVATION",),
    "wo": ("ACTIVATION",),
    "token_embedding": ("TIE_EMBEDDINGS",),
}


class Piece(NamedTuple):
    """The name of an array in a checkpoint, and which layer of it; None: all of it."""

    name: str
    layer: int | None = None


class Origin(NamedTuple):
    """Where an array comes from, and what is done to it, in this order.

    Attributes:
      pieces: one for all of the array, or one for each of its layers. None: drawn for a new run.
      experts: if not 0, each layer is copied for E experts: [layers, ...] -> [layers, E, ...].
      factor: what the array is multiplied by.
      noise: standard deviation of what is added, relative to each matrix's root mean square.
    """

    pieces: tuple[Piece | None, ...]
    experts: int = 0
    factor: float = 1.0
    noise: float = 0.0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is made of layers: it is an array of the checkpoint, or it is drawn."""
        return not any(piece and piece.layer is not None for piece in self.pieces)


DRAWN = Origin((None,))
Origins = dict[str, Origin]  # by the names of the model's parameters, all of them


def all_drawn(model: ModelConfig) -> Origins:
    """No parameter is taken: the run starts from scratch."""
    return dict.fromkeys(parameter_shapes(model), DRAWN)


def same_names(model: ModelConfig) -> Origins:
    """All parameters are taken as they are."""
    return {name: Origin((Piece(name),)) for name in parameter_shapes(model)}


def matched_names(model: ModelConfig, pairs: Sequence[tuple[str, str | None]]) -> Origins:
    """RESTORED_PARAMETERS: the pairs of T5X's assignment maps; see `RunConfig`.

    Raises UserError where a pair is the first that matches for no parameter, or an array is taken
    for parameters of several shapes.
    """
    shapes, taken = parameter_shapes(model), dict[str, str]()
    origins = all_drawn(model)
    for name, (match, saved) in first_matches("RESTORED_PARAMETERS", pairs, shapes).items():
        if saved is None:
            continue
        saved = name if saved == match.re.pattern else match.expand(saved)
        origins[name] = Origin((Piece(saved),))
        other = taken.setdefault(saved, name)
        if shapes[name] != shapes[other]:
            raise UserError(
                f"RESTORED_PARAMETERS takes {saved} for {name}, which is {shapes[name]} in the "
                f"model, and for {other}, which is {shapes[other]}"
            )
    return origins


def from_teacher(student: ModelConfig, teacher: ModelConfig) -> Origins:
    """INITIALIZE_FROM_TEACHER: the teacher's parameters, wherever both models have the same one.

    Section 4.2: "initializing the dense model with the non-expert weights" of the sparse one. Taken
    is each layer of each parameter, counted over the whole stack, that has the same name, shape and
    meaning in both models, except experts. So the models may have their Switch layers at different
    places, and different numbers of layers. The meaning is the same where `_SETTINGS` agree.
    """

    def meanings(model: ModelConfig) -> dict[str, tuple[Any, ...]]:
        shapes, found = parameter_shapes(model), {}
        for name, axes in parameter_axes(model).items():
            stacked = int(axes[0] == "layers")
            settings = [s for part in name.split("/") for s in _SETTINGS.get(part, ())]
            values = [model.identity[setting] for setting in settings]
            found[name] = shapes[name][stacked:], axes[stacked:], values
        return found

    own, theirs, axes = meanings(student), meanings(teacher), parameter_axes(student)

    def is_taken(name: str, piece: Piece) -> bool:
        return "expert" not in axes[name] and own[name] == theirs[piece.name]

    return layer_by_layer(student, teacher, is_taken)


def other_meanings(theirs: ModelConfig, ours: ModelConfig) -> list[str]:
    """The settings that differ, and give parameters another meaning: "HEAD_DIM 8 -> 4"."""
    names = dict.fromkeys(name for names in _SETTINGS.values() for name in names)
    before, after = ({name: of.identity[name] for name in names} for of in (theirs, ours))
    return differences(before, after)


def layer_by_layer(
    model: ModelConfig,
    other: ModelConfig,
    is_taken: Callable[[str, Piece], bool] = lambda name, piece: True,
) -> Origins:
    """Each layer of a parameter from the same layer of the other model, wherever it lies there.

    `is_taken` gets a parameter's name and what there is for a layer of it; False: that is drawn.
    """
    theirs, pieces = _places(other), dict[str, list[Piece | None]]()
    for layer, (name, _) in _places(model).items():
        piece = theirs.get(layer)
        taken = piece if piece is not None and is_taken(name, piece) else None
        pieces.setdefault(name, []).append(taken)
    return {name: Origin(tuple(each)) for name, each in pieces.items()}


def assemble(
    origins: Origins, drawn: Mapping[str, Any], given: Mapping[str, Any], key: jax.Array
) -> dict[str, Any]:
    """The arrays of a model by name: `drawn` as in a new run, or `given`, the checkpoint's.

    Each has those that `origins` take from it; `key` is of the noise.
    """
    keys = jax.random.split(key, len(origins))
    arrays = {}
    for own_key, (name, origin) in zip(keys, origins.items(), strict=True):
        array = in_pieces(origin, drawn.get(name), given)
        if origin.experts:
            copies = (len(array), origin.experts, *array.shape[1:])
            array = jnp.broadcast_to(array[:, None], copies)
        if origin.factor != 1:
            array = array * origin.factor
        if origin.noise:
            size = jnp.sqrt(jnp.mean(jnp.square(array), axis=(-2, -1), keepdims=True))
            array = array + origin.noise * size * jax.random.normal(own_key, array.shape)
        arrays[name] = array
    return arrays


def in_pieces(origin: Origin, drawn: Any, given: Mapping[str, Any]) -> Any:
    """An array from its pieces; or a tree of arrays, as an optimiser has for each parameter."""
    if origin.is_whole:
        piece = origin.pieces[0]
        return drawn if piece is None else given[piece.name]

    def layer(index: int, piece: Piece | None) -> Any:
        tree, at = (drawn, index) if piece is None else (given[piece.name], piece.layer)
        return jax.tree.map(lambda array: array[at], tree)

    layers = [layer(index, piece) for index, piece in enumerate(origin.pieces)]
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *layers)


def in_words(model: ModelConfig, origins: Origins) -> list[str]:
    """How many numbers of each group of parameters are taken, and drawn; [] where none is drawn."""
    shapes, axes = parameter_shapes(model), parameter_axes(model)
    taken, drawn = Counter[str](), Counter[str]()
    for name, origin in origins.items():
        group = parameter_group(name.partition("/")[0], axes[name])
        for piece in origin.pieces:
            sizes = drawn if piece is None else taken
            sizes[group] += math.prod(shapes[name]) // len(origin.pieces)
    if not drawn:
        return []
    return [
        f"{what}: {', '.join(f'{group} {size:,}' for group, size in sizes.items()) or 'none'}"
        for what, sizes in (("taken", taken), ("drawn at random", drawn))
    ]


def _places(model: ModelConfig) -> dict[str, Piece]:
    """Where each layer of each parameter is, as 'encoder/layer_3/...', counted over the stack."""
    places = dict[str, Piece]()
    for name, axes in parameter_axes(model).items():
        if axes[0] != "layers":
            places[name] = Piece(name)
            continue
        stack, blocks, place, *part = name.split("/")
        for index, layer in enumerate(model.stack(stack).layers_at(blocks, place)):
            places["/".join([stack, f"layer_{layer}", *part])] = Piece(name, index)
    return places
