"""A T5X checkpoint, opened and checked by its headers."""

import contextlib
import re

import numpy as np
from etils import epath

from switch_jax.config import ModelConfig
from switch_jax.conversion.source import Copy, Source, take_copies
from switch_jax.conversion.t5x.architecture import architecture
from switch_jax.conversion.t5x.msgpack_file import find_file, read_file
from switch_jax.conversion.t5x.tensor_names import relative_bias, tensor_names
from switch_jax.conversion.t5x.tensors import open_tensors, unstacked
from switch_jax.conversion.tensor_layout import Tensor
from switch_jax.storage import is_folder
from switch_jax.utils.errors import UserError

# VOCABULARY of the released models, by the rows of their embeddings; all others are T5's.
_VOCABULARIES = {250112: "mt5", 384: "byte"}
# There is no config beside the tensors, which are the same with any value of these.
_UNTOLD = (
    "num_selected_experts", "encoder_router_type", "relative_position_max_distance",
    "norm_epsilon",
)  # fmt: skip


def open_checkpoint(path: epath.Path) -> Source | None:
    """Opens the checkpoint that `find_file` finds, by its headers; None where there is none.

    The optimiser's state stays out. UserError as of `Source`, or if our model cannot express it.
    """
    file = find_file(path)
    if file is None:
        return None
    content = read_file(file)
    opened = open_tensors(file.parent, content.parameters)
    try:
        tensors = unstacked(opened)
        copies = [copy for stack in ("encoder", "decoder") for copy in _biases(tensors, stack)]
        fields = architecture(tensors)
        model = ModelConfig(**fields)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
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
        names=tensor_names(model),
        tensors=tensors,
        copies=copies,
        undetermined=_UNTOLD,
    )


def _biases(tensors: dict[str, Tensor], stack: str) -> list[Copy]:
    """Takes the relative biases, one for each layer in scalable_t5: ours where all are equal."""
    pattern = re.compile(rf"{stack}/layers_\d+/relpos_bias/rel_embedding")
    reason = "a model of ours has one relative bias for all layers of a stack"
    names = [name for name in tensors if pattern.fullmatch(name)]
    return take_copies(tensors, relative_bias(stack), names, reason)


def _step(file: epath.Path, leaf: object) -> int | None:
    """The step by the optimiser's state, or by the folder's name."""
    if leaf is not None:
        with contextlib.suppress(UserError):  # it lies with the state, which may not be there
            (tensor,) = open_tensors(file.parent, {"state/step": leaf}).values()
            return int(np.asarray(tensor[()]))
    folder = file.parent.parent if file.parent.name == "state" else file.parent
    match = re.fullmatch(r"checkpoint_(\d+)", folder.name)
    return int(match[1]) if match else None
