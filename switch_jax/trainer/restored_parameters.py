"""RESTORED_PARAMETERS: a new run starts with some of the parameters of a checkpoint.

The pairs of patterns and names are those of T5X's assignment maps; see `RunConfig`.
"""

from collections.abc import Collection
from typing import Any

from flax.traverse_util import flatten_dict, unflatten_dict

from switch_jax.checkpointing.integrity import Shapes
from switch_jax.config import Config
from switch_jax.errors import UserError
from switch_jax.model.parameter_names import (
    first_matches,
    in_groups,
    names_there,
    parameter_axes,
    parameter_shapes,
)

_MAX_NAMED = 3  # parameters that a message names


def check(config: Config, saved: Shapes, checkpoint: str) -> None:
    """Checks that a checkpoint has what the pairs take, in the shapes of the model.

    Args:
      config: of a run with `restored_parameters`.
      saved: the checkpoint's shapes by name.
      checkpoint: what messages call it.

    Raises:
      UserError: a pair matches no parameter of the model; or the checkpoint has no parameter of
        such a name, or has it in another shape.
    """
    own, taken = parameter_shapes(config.model), _names_in_checkpoint(config)
    absent = list(dict.fromkeys(name for name in taken.values() if name not in saved))
    if absent:
        raise UserError(
            f"RESTORED_PARAMETERS takes {_few(absent)}, which {checkpoint} does not have: "
            f"{names_there(saved, absent[0])}"
        )
    differing = {name: theirs for name, theirs in taken.items() if own[name] != saved[theirs]}
    if differing:
        shown = [
            f"{name} is {own[name]} in the model, and {theirs} is {saved[theirs]} in the checkpoint"
            for name, theirs in differing.items()
        ]
        raise UserError(
            f"RESTORED_PARAMETERS does not fit {checkpoint}: {_few(shown, '; ')}; set the sizes as "
            "that model has them, or put a pair (PATTERN, None) first, which draws them at random"
        )


def include_vocabulary(config: Config) -> bool:
    """Whether a run starts with an array that has a row or column for each id of a vocabulary."""
    if config.run.restored_parameters is None:
        return True
    axes = parameter_axes(config.model)
    return any("vocab" in axes[name] for name in _names_in_checkpoint(config))


def describe(config: Config, checkpoint: str) -> list[str]:
    """What is restored from a checkpoint, and what is not, as lines of the log."""
    model, taken = config.model, _names_in_checkpoint(config)
    drawn = parameter_shapes(model).keys() - taken.keys()
    return [
        f"starting from some parameters of {checkpoint}: {len(taken)} arrays of "
        f"{len(taken) + len(drawn)} are restored",
        f"restored: {in_groups(model, taken)}",
        f"drawn at random: {in_groups(model, drawn)}",
    ]


def as_saved(config: Config, abstract_parameters: Any) -> Any:
    """What is read of a checkpoint: the model's nested dict, in part and by the names there.

    Without `restored_parameters` it is the model's.
    """
    if config.run.restored_parameters is None:
        return abstract_parameters
    own = flatten_dict(abstract_parameters, sep="/")
    taken = _names_in_checkpoint(config)
    return unflatten_dict({theirs: own[name] for name, theirs in taken.items()}, sep="/")


def in_place_of(config: Config, drawn: Any, loaded: Any) -> dict[str, Any]:
    """The parameters of a run at its start.

    Args:
      config: of a run with `restored_parameters`.
      drawn: nested dict of all parameters, drawn at random.
      loaded: those that are restored, as `as_saved` has them.
    """
    given = flatten_dict(loaded, sep="/")
    restored = {name: given[theirs] for name, theirs in _names_in_checkpoint(config).items()}
    return unflatten_dict({**flatten_dict(drawn, sep="/"), **restored}, sep="/")


def _names_in_checkpoint(config: Config) -> dict[str, str]:
    """The name in the checkpoint of each parameter that the run takes, by its name in the model.

    Raises:
      UserError: a pair matches no parameter.
    """
    names, pairs = parameter_shapes(config.model), config.run.restored_parameters or ()
    return {
        name: name if saved == match.re.pattern else match.expand(saved)
        for name, (match, saved) in first_matches("RESTORED_PARAMETERS", pairs, names).items()
        if saved is not None
    }


def _few(texts: Collection[str], separator: str = ", ") -> str:
    """The first of them, and how many more there are."""
    shown = list(texts)[:_MAX_NAMED]
    more = f"{separator}and {len(texts) - len(shown)} more" if len(texts) > len(shown) else ""
    return separator.join(shown) + more
