"""The names of a model's parameters, as 'encoder/blocks/layer_0/self_attention/query'.

The layers at the same place of each block are one array with a leading axis, and one name.
"""

import math
import re
from collections.abc import Collection, Iterable
from typing import Any

from flax.traverse_util import flatten_dict

from switch_jax.config import ModelConfig
from switch_jax.model.functional import abstract_parameters, logical_axes
from switch_jax.utils.errors import UserError, did_you_mean

# The first of these axes that a parameter has names its group; without any it is a norm's scale.
_KINDS = {
    "expert": "experts",
    "router": "router",
    "vocab": "embedding",  # and the output projection of an untied model
    "mlp": "mlp",
    "relpos_buckets": "position_bias",
    "heads": "attention",
}


def parameter_shapes(model: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter by its name."""
    parameters = flatten_dict(abstract_parameters(model), sep="/")
    return {name: parameter.shape for name, parameter in parameters.items()}


def parameter_axes(model: ModelConfig) -> dict[str, tuple[str, ...]]:
    """The logical axes of each parameter by its name."""
    return flatten_dict(logical_axes(model), sep="/")


def parameter_group(part: str, axes: tuple[str, ...]) -> str:
    """As encoder/experts, for a stack and axes; an embedding belongs to the whole model."""
    kind = next((_KINDS[axis] for axis in _KINDS if axis in axes), "norms")
    return kind if kind == "embedding" else f"{part}/{kind}"


def sizes_by_group(model: ModelConfig, names: Collection[str] | None = None) -> dict[str, int]:
    """How many numbers are in the parameters of each group; `names`: of these alone."""
    shapes, sizes = parameter_shapes(model), dict[str, int]()
    for name, axes in parameter_axes(model).items():
        if names is None or name in names:
            group = parameter_group(name.partition("/")[0], axes)
            sizes[group] = sizes.get(group, 0) + math.prod(shapes[name])
    return sizes


def in_groups(model: ModelConfig, names: Collection[str]) -> str:
    """What the log says of some parameters: 'encoder/mlp 1,024, embedding 4,096'; or 'none'."""
    sizes = sizes_by_group(model, names)
    return ", ".join(f"{group} {size:,}" for group, size in sizes.items()) or "none"


def first_matches(
    macro: str, pairs: Iterable[tuple[str, Any]], names: Collection[str], kind: str = "of the model"
) -> dict[str, tuple[re.Match[str], Any]]:
    """The match and the value of the first pair that matches each name; without one it is left out.

    Pairs are a regular expression of whole names and a value. `macro` and `kind` say in messages
    whose pairs and which parameters they are. Raises UserError if a pair is the first for none.
    """
    found = dict[str, tuple[re.Match[str], Any]]()
    for pattern, value in pairs:
        matches = matching(pattern, names)
        if not matches:
            raise UserError(
                f"{macro}: {pattern!r} matches no parameter {kind}; it has to match a whole name: "
                f"{names_there(names, pattern)}"
            )
        if found.keys() >= matches.keys():
            raise UserError(
                f"{macro}: the pairs before {pattern!r} match everything that it matches: put it "
                "first"
            )
        found = {name: (match, value) for name, match in matches.items()} | found
    return {name: found[name] for name in names if name in found}


def matching(pattern: str, names: Iterable[str]) -> dict[str, re.Match[str]]:
    """The match of each name that a regular expression matches as a whole."""
    return {name: match for name in names if (match := re.fullmatch(pattern, name))}


def names_there(names: Collection[str], wanted: str = "") -> str:
    """The end of a message about a name that none has: similar ones, and how the names begin."""
    beginnings = dict.fromkeys(
        "/".join([*name.split("/")[:2], *["..."] * (name.count("/") > 1)]) for name in sorted(names)
    )
    return (
        f"there are {', '.join(beginnings)}{did_you_mean(wanted, list(names))}; `switch_jax "
        "convert --inspect MODEL_DIR` prints all names of a run's parameters"
    )
