"""A T5X checkpoint, opened and checked by its headers."""

import contextlib
import re

import numpy as np
from etils import epath

from switch_jax.config import ModelConfig
from switch_jax.conversion.source import Copy, Source, account_for
from switch_jax.conversion.stacked import Tensor
from switch_jax.conversion.t5x.architecture import architecture
from switch_jax.conversion.t5x.msgpack_file import find_file, read_file
from switch_jax.conversion.t5x.tensor_names import relative_bias, tensor_names
from switch_jax.conversion.t5x.tensors import one_for_each, open_tensors
from switch_jax.errors import UserError
from switch_jax.storage import is_folder

# VOCABULARY of the released models, by the rows of their embeddings; all others are T5's.
_VOCABULARIES = {250112: "mt5", 384: "byte"}
# There is no config beside the tensors, which are the same with any value of these.
_UNTOLD = (
    "num_selected_experts", "encoder_router_type", "relative_position_max_distance",
    "norm_epsilon",
)  # fmt: skip


def is_t5x(path: epath.Path) -> bool:
    """Whether a path looks like a T5X checkpoint; raises UserError as `find_file`."""
    return find_file(path) is not None


def open_checkpoint(path: epath.Path) -> Source:
    """Opens a checkpoint, and accounts for every tensor by shapes; the optimiser's state stays out.

    Args:
      path: see `find_file`.

    Raises:
      UserError: it is damaged, a tensor is missing, left over or of another shape, or our model
        cannot express it.
    """
    file = find_file(path)
    if file is None:
        raise UserError(f"{path} is no T5X checkpoint: it has no file named checkpoint")
    content = read_file(file)
    opened = open_tensors(file.parent, content.parameters)
    try:
        tensors, copies = _split_copies(one_for_each(opened))
        fields = architecture(tensors)
        model = ModelConfig(**fields)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    names = account_for(tensors, file, model, tensor_names, "a model of its sizes")
    state = "with the optimiser's state, which is left out"
    if not content.has_optimizer_state:
        state = "without state of an optimiser"
    return Source(
        path=path,
        folder=path if is_folder(path) else path.parent,
        format="T5X checkpoint",
        details=f"version {content.version}, {state}",
        step=_step(file, content.step),
        vocabulary=_VOCABULARIES.get(fields["num_embeddings"], "t5"),
        architecture=fields,
        names=names,
        tensors=tensors,
        copies=copies,
        untold=_UNTOLD,
    )


def _split_copies(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], list[Copy]]:
    """The tensors with one relative bias for each stack; and those of its other layers.

    T5X's scalable_t5 gives each layer its own: such a model is ours where all of them are equal.
    """
    rest, copies = dict(tensors), []
    for stack in ("encoder", "decoder"):
        shared = relative_bias(stack)
        pattern = re.compile(rf"{stack}/layers_\d+/relpos_bias/rel_embedding")
        for name in filter(pattern.fullmatch, tensors):
            if shared in rest:
                reason = "a model of ours has one relative bias for all layers of a stack"
                copies.append(Copy(name, rest.pop(name), shared, reason))
            else:
                rest[shared] = rest.pop(name)
    return rest, copies


def _step(file: epath.Path, leaf: object) -> int | None:
    """The step by the optimiser's state, or by the folder's name."""
    if leaf is not None:
        with contextlib.suppress(UserError):  # it lies with the state, which may not be there
            (tensor,) = open_tensors(file.parent, {"state/step": leaf}).values()
            return int(np.asarray(tensor[()]))
    folder = file.parent.parent if file.parent.name == "state" else file.parent
    match = re.fullmatch(r"checkpoint_(\d+)", folder.name)
    return int(match[1]) if match else None
