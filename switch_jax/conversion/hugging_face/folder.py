"""A Hugging Face folder, opened and checked by its headers, and its parameters in our form."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from switch_jax.config import ModelConfig
from switch_jax.conversion.hugging_face.model_config import (
    CONFIG,
    architecture,
    read_config,
)
from switch_jax.conversion.hugging_face.tensor_files import open_tensors, tensor_files
from switch_jax.conversion.hugging_face.tensor_names import (
    LOGITS,
    TABLE,
    TABLE_ALIASES,
    UNUSED,
    tensor_names,
)
from switch_jax.conversion.stacked import StackedTensors, Tensor, is_names
from switch_jax.errors import UserError
from switch_jax.model import abstract_parameters
from switch_jax.runtime.processes import run_on_all

SENTENCEPIECE = "spiece.model"  # the tokenizer's file
_FLOATS = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class HuggingFaceFolder:
    """A model whose tensors are all there, with the shapes that its config.json says.

    Attributes:
      path: the folder.
      files: those that hold the tensors.
      architecture: the fields of `ModelConfig` that its parameters depend on.
      names: a `TensorNames` for each parameter, nested.
      tensors: by name.
      aliases: other names of the token table.
    """

    path: Path
    files: list[Path]
    architecture: dict[str, Any]
    names: Any
    tensors: dict[str, Tensor]
    aliases: dict[str, Tensor]

    @property
    def dtypes(self) -> list[str]:
        """Those of the tensors."""
        return sorted({tensor.dtype for tensor in self.tensors.values()})

    @property
    def parameters(self) -> Any:
        """`StackedTensors`, nested: read when they are indexed."""
        return jax.tree.map(
            lambda names: StackedTensors(names, self.tensors), self.names, is_leaf=is_names
        )

    def check_aliases(self) -> None:
        """Raises UserError where names of the token table hold different numbers; reads them."""
        table = self.tensors[TABLE]
        whole = (slice(None),) * len(table.shape)
        for name, tensor in self.aliases.items():
            if tensor.shape == table.shape and np.array_equal(tensor[whole], table[whole]):
                continue
            reason = "a model of ours has one table for the encoder and the decoder"
            if name == LOGITS:
                reason = f"{CONFIG} says that the logits are tied to the table"
            raise UserError(f"{self.path}: {name} differs from {TABLE}, and {reason}")


def is_hugging_face(path: Path) -> bool:
    """Whether a folder looks like one of Hugging Face's: it has a config.json."""
    return (path / CONFIG).is_file()


def read_architecture(path: Path) -> dict[str, Any]:
    """The fields of `ModelConfig` that a folder's config.json determines.

    Raises:
      UserError: config.json is damaged, or our model cannot express it.
    """
    config = read_config(path)
    try:
        fields = architecture(config)
        ModelConfig(**fields)
    except UserError as error:
        raise UserError(f"{path / CONFIG}: {error}") from error
    return fields


def open_folder(path: Path) -> HuggingFaceFolder:
    """Opens a folder, and accounts for every tensor by the headers of its files.

    Raises:
      UserError: it is damaged, a tensor is missing, left over or of another shape, or our model
        cannot express it.
    """
    fields = read_architecture(path)
    model = ModelConfig(**fields)
    files = tensor_files(path)
    tensors, aliases = _split_aliases(open_tensors(files), model)
    if not model.tie_embeddings and LOGITS not in tensors:
        raise UserError(
            f"{path} has no {LOGITS}, so its logits are those of the token table, and by {CONFIG} "
            "they are not scaled by d_model^-0.5: a model of ours has either both or neither"
        )
    shapes = abstract_parameters(model)
    names = tensor_names(model, shapes)
    _check_tensors(path, names, shapes, tensors)
    return HuggingFaceFolder(path, files, fields, names, tensors, aliases)


def load_parameters(path: Path, model: ModelConfig, abstract_parameters: Any) -> Any:
    """Reads the parameters onto a mesh, each process those of its devices.

    Args:
      path: the folder.
      model: of the run that takes them.
      abstract_parameters: nested dict of `ShapeDtypeStruct`s with shardings.

    Returns:
      Arrays of those shapes, dtypes and shardings.

    Raises:
      UserError: see `open_for_model`.
    """
    folder = run_on_all(lambda: open_for_model(path, model))
    return jax.tree.map(
        lambda stacked, abstract: jax.make_array_from_callback(
            abstract.shape, abstract.sharding, stacked.__getitem__
        ),
        folder.parameters,
        abstract_parameters,
    )


def open_for_model(path: Path, model: ModelConfig) -> HuggingFaceFolder:
    """Opens a folder whose parameters a model of ours takes.

    Raises:
      UserError: the models differ, or see `open_folder`.
    """
    folder = open_folder(path)
    folder.check_aliases()
    differing = [
        f"{name} = {ours!r}, and the folder has {theirs!r}"
        for name, theirs in folder.architecture.items()
        if (ours := _effective(model, name)) != theirs
    ]
    if differing:
        raise UserError(
            f"{path} is of another model than the gin files describe: {'; '.join(differing[:3])}; "
            "set them as the folder has them, or take that model's gin file"
        )
    return folder


def _effective(model: ModelConfig, name: str) -> Any:
    if name == "expert_mlp_dim":
        return model.expert_mlp_dim or model.mlp_dim
    return getattr(model, name)


def _split_aliases(
    tensors: dict[str, Tensor], model: ModelConfig
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors with the token table under one name; and its other names.

    Those that nothing uses are left out.
    """
    names = TABLE_ALIASES + ((LOGITS,) if model.tie_embeddings else ())
    aliases = {name: tensors[name] for name in names if name in tensors}
    rest = {name: t for name, t in tensors.items() if name not in (*aliases, *UNUSED)}
    if aliases:
        rest.setdefault(TABLE, next(iter(aliases.values())))
    return rest, aliases


def _check_tensors(path: Path, names: Any, shapes: Any, tensors: dict[str, Tensor]) -> None:
    """Raises UserError where a tensor is missing, left over, or of another shape or dtype."""
    wanted: dict[str, tuple[int, ...]] = {}
    layouts = jax.tree.leaves(names, is_leaf=is_names)
    for layout, parameter in zip(layouts, jax.tree.leaves(shapes), strict=True):
        wanted |= dict.fromkeys(layout.names.flat, layout.shape_of_each(parameter.shape))
    missing = [f"{name} is missing" for name in wanted.keys() - tensors.keys()]
    left_over = [f"{name} is left over" for name in tensors.keys() - wanted.keys()]
    other = [
        f"{name} is {list(tensors[name].shape)} and should be {list(shape)}"
        for name, shape in wanted.items()
        if name in tensors and tensors[name].shape != shape
    ]
    problems = sorted(missing) + sorted(left_over) + sorted(other)
    if problems:
        raise UserError(
            f"{path}: its tensors are not those of its {CONFIG}: {len(missing)} missing, "
            f"{len(left_over)} left over, {len(other)} of another shape ({'; '.join(problems[:3])})"
        )
    for name, tensor in tensors.items():
        if tensor.dtype not in _FLOATS:
            raise UserError(
                f"{path}: {name} is {tensor.dtype}; parameters are read as {', '.join(_FLOATS)}"
            )
