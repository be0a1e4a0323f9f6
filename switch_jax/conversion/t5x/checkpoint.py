"""Opens a T5X checkpoint, and checks it by its headers."""

import contextlib
import re

import numpy as np
from etils import epath

from switch_jax.config import ModelConfig
from switch_jax.conversion.source import Copy, Source, pop_copies
from switch_jax.conversion.t5x.architecture import architecture
from switch_jax.conversion.t5x.msgpack_file import find_file, read_file
from switch_jax.conversion.t5x.tensor_names import relative_bias, tensor_names
from switch_jax.conversion.t5x.tensors import open_tensors, unstack
from switch_jax.conversion.tensor_layout import Tensor
from switch_jax.storage import is_folder
from switch_jax.utils.errors import UserError

# VOCABULARY of the released models, by the rows of their embeddings; other models have T5's.
_VOCABULARIES = {250112: "mt5", 384: "byte"}
# Fields of `ModelConfig` that the tensors do not depend on; T5X saves no config with them.
_UNDETERMINED = (
    "num_selected_experts", "normalize_gates", "encoder_router_type",
    "relative_position_max_distance", "norm_epsilon",
)  # fmt: skip


def open_checkpoint(path: epath.Path) -> Source | None:
    """Opens the checkpoint that `find_file` finds, by its headers; None if there is none.

    The optimiser's state is left out. Raises as `Source`, and UserError if our model cannot express
    it.
    """
    file = find_file(path)
    if file is None:
        return None
    content = read_file(file)
    opened = open_tensors(file.parent, content.parameters)
    try:
        tensors = unstack(opened)
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
        undetermined=_UNDETERMINED,
    )


def _biases(tensors: dict[str, Tensor], stack: str) -> list[Copy]:
    """Makes one relative bias of those of scalable_t5, which has a bias for each layer."""
    pattern = re.compile(rf"{stack}/layers_\d+/relpos_bias/rel_embedding")
    reason = "a model of ours has one relative bias for all layers of a stack"
    names = [name for name in tensors if pattern.fullmatch(name)]
    return pop_copies(tensors, relative_bias(stack), names, reason)


def _step(file: epath.Path, leaf: object) -> int | None:
    """Finds the step in the optimiser's state, or in the folder's name."""
    if leaf is not None:
        with contextlib.suppress(UserError):  # the folder of the optimiser's state may be absent
            (tensor,) = open_tensors(file.parent, {"state/step": leaf}).values()
            return int(np.asarray(tensor[()]))
    folder = file.parent.parent if file.parent.name == "state" else file.parent
    match = re.fullmatch(r"checkpoint_(\d+)", folder.name)
    return int(match[1]) if match else None
