"""Opens a checkpoint of another format: every tensor is accounted for, and none is read yet."""

import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from etils import epath
from flax.traverse_util import flatten_dict, unflatten_dict

from switch_jax.config import ModelConfig
from switch_jax.config.sparse_layers import LAYOUTS, sparse_layers
from switch_jax.conversion.tensor_layout import StackedTensors, Tensor
from switch_jax.model import abstract_parameters
from switch_jax.model.parameter_names import parameter_shapes
from switch_jax.runtime.multihost import run_on_all
from switch_jax.storage import explain_read_errors, read_bytes
from switch_jax.utils.differences import differences, listed
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import short_repr
from switch_jax.utils.json_text import parse_json

_FLOATS = ("float32", "bfloat16", "float16")


class Copy(NamedTuple):
    """A tensor that must equal `original`; `reason` says why, as the end of a message."""

    name: str
    tensor: Tensor
    original: str
    reason: str


def pop_copies(
    tensors: dict[str, Tensor], original: str, names: Iterable[str], reason: str
) -> list[Copy]:
    """Removes copies of `original` from the tensors; if that is missing, the first becomes it."""
    copies = [Copy(n, tensors.pop(n), original, reason) for n in names if n in tensors]
    if copies:
        tensors.setdefault(original, copies[0].tensor)
    return copies


@dataclasses.dataclass(frozen=True)
class Source:
    """A model whose tensors are all there, with the shapes that it should have.

    Raises UserError if a tensor is missing, left over, or of another shape or dtype.

    Attributes:
      path: the folder, or the file, that was opened.
      folder: the folder in which a tokenizer would be.
      format: the name of the format, as in 'T5X checkpoint'.
      details: what else `convert --inspect` prints of the files.
      step: the training step; None if it is not known.
      vocabulary: VOCABULARY of the released models of this format; None: it can have no such.
      architecture: the fields of `ModelConfig` that the checkpoint determines.
      names: a `TensorNames` for each parameter, nested.
      copies: tensors that are left out, since others hold the same.
      undetermined: fields of `ModelConfig` that may have any value for these tensors.
      row_length: the longest row of tokens that the model was made for; None: it is not known.
    """

    path: epath.Path
    folder: epath.Path
    format: str
    details: str
    step: int | None
    vocabulary: str | None
    architecture: dict[str, Any]
    names: Any
    tensors: dict[str, Tensor]
    copies: list[Copy]
    undetermined: tuple[str, ...] = ()
    row_length: int | None = None

    def __post_init__(self) -> None:
        tensors, wanted = self.tensors, dict[str, tuple[int, ...]]()
        parameters = abstract_parameters(ModelConfig(**self.architecture))
        pairs = zip(jax.tree.leaves(self.names), jax.tree.leaves(parameters), strict=True)
        for layout, parameter in pairs:
            wanted |= dict.fromkeys(layout.names.flat, layout.shape_of_each(parameter.shape))
        missing = [f"{name} is missing" for name in wanted.keys() - tensors.keys()]
        left_over = [f"{name} is left over" for name in tensors.keys() - wanted.keys()]
        other = [
            f"{name} is {list(tensors[name].shape)} and should be {list(shape)}"
            for name, shape in wanted.items()
            if name in tensors and tensors[name].shape != shape
        ]
        if problems := [*sorted(missing), *sorted(left_over), *sorted(other)]:
            raise UserError(
                f"{self.path}: its tensors do not fit the sizes of its model: {len(missing)} "
                f"missing, {len(left_over)} left over, {len(other)} of another shape "
                f"({'; '.join(problems[:3])})"
            )
        for name, tensor in tensors.items():
            if tensor.dtype not in _FLOATS:
                raise UserError(
                    f"{self.path}: {name} is {tensor.dtype}; parameters are read as "
                    f"{', '.join(_FLOATS)}"
                )

    def __str__(self) -> str:
        step = "" if self.step is None else f" of step {self.step}"
        return f"{self.path}, a {self.format}{step}"

    @property
    def dtypes(self) -> list[str]:
        return sorted({tensor.dtype for tensor in self.tensors.values()})

    @property
    def parameters(self) -> Any:
        """The parameters as nested `StackedTensors`, which are read when they are indexed."""
        return jax.tree.map(lambda names: StackedTensors(names, self.tensors), self.names)

    def check_model(self, model: ModelConfig, remedy: str = "set them as the folder has") -> None:
        """Checks that a model of ours can have the parameters; reads the copies.

        Raises UserError, with the remedy, if the models differ, or copies and their originals do.
        """
        if found := model_differences(type(model)(**self.architecture), model, self.undetermined):
            raise UserError(
                f"{self.path} is of another model than the gin files describe: {listed(found)}; "
                f"{remedy}"
            )
        self.check_copies()

    def check_copies(self) -> None:
        """Reads the copies; raises UserError if they hold other numbers than their originals."""
        for copy in self.copies:
            original = self.tensors[copy.original]
            whole = (slice(None),) * len(original.shape)
            same_shape = copy.tensor.shape == original.shape
            if not (same_shape and np.array_equal(copy.tensor[whole], original[whole])):
                raise UserError(
                    f"{self.path}: {copy.name} differs from {copy.original}, and {copy.reason}"
                )

    def load(self, abstract_parameters: Any) -> Any:
        """Reads all parameters, or some, onto a mesh, each process the shards of its devices.

        Nested `ShapeDtypeStruct`s with shardings -> float32 arrays. Raises UserError on every
        process if one of them cannot read a tensor.
        """
        parameters = flatten_dict(self.parameters)
        return run_on_all(
            lambda: unflatten_dict(
                {
                    path: jax.make_array_from_callback(
                        abstract.shape, abstract.sharding, parameters[path].__getitem__
                    )
                    for path, abstract in flatten_dict(abstract_parameters).items()
                }
            )
        )


def model_differences(
    theirs: ModelConfig, ours: ModelConfig, undetermined: Sequence[str] = ()
) -> list[str]:
    """Lists the settings, or else shapes, that differ; fields in `undetermined` may differ."""
    same = {name.upper(): ours.identity[name.upper()] for name in undetermined}
    settings = differences({**theirs.identity, **same}, ours.identity)
    return settings or differences(parameter_shapes(theirs), parameter_shapes(ours))


@contextlib.contextmanager
def read_as(file: epath.Path, kind: str) -> Iterator[None]:
    """Turns any error in the block into a UserError: the file is not `kind`, as in 'JSON'."""
    try:
        with explain_read_errors(file):
            yield
    except UserError:
        raise
    except Exception as error:  # libraries raise errors of many types
        reason = str(error).strip().split("\n")[0][:100] or type(error).__name__
        raise UserError(f"{file} is not {kind} ({reason}): copy it again") from error


def read_small_file(file: epath.Path) -> bytes:
    """Reads a file that holds no tensors; raises UserError if that fails."""
    with explain_read_errors(file):
        return read_bytes(file)


def read_json(file: epath.Path) -> dict[str, Any]:
    """Reads the JSON object in a small file; raises UserError if that fails, or it is none."""
    with read_as(file, "JSON"):
        content = parse_json(read_bytes(file))
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object")
    return content


def path_in(folder: epath.Path, name: object) -> epath.Path:
    """Returns the path of a file that a checkpoint names, in a folder, whatever its old folders.

    Raises UserError if it is not the name of a file.
    """
    if not isinstance(name, str) or not name.isprintable():  # as NUL and halves of characters
        raise UserError(
            f"{folder} is damaged: it has {short_repr(name)} as the name of a file; copy it again"
        )
    return folder / epath.Path(name).name


def sparse_fields(theirs: dict[str, list[int]], num_layers: dict[str, int]) -> dict[str, Any]:
    """Finds the fields of `ModelConfig` that give experts to these layers; UserError if none do."""
    first = next(iter(theirs))  # a step that all stacks share is also that of the first one
    step = max(1, num_layers[first] // max(1, len(theirs[first])))
    spread = {stack: sparse_layers("mixed", n, n // step) for stack, n in num_layers.items()}
    if theirs == spread and not any(n % step for n in num_layers.values()):
        return {"sparse_step": step}
    fields: dict[str, Any] = {}
    for stack, layers in theirs.items():
        number = num_layers[stack]
        layouts = [x for x in LAYOUTS if sparse_layers(x, number, len(layers)) == layers]
        if layers and number % len(layers):  # as 1 and 3 of five, behind which one is left over
            layouts = [x for x in layouts if x != "mixed"]
        if not layouts:
            raise UserError(
                f"the layers with experts are {short_repr(layers)} of the {number} of the {stack}; "
                "ours are spread evenly, the last of each few, or the first, the middle or the "
                "last ones"
            )
        fields |= {f"num_{stack}_sparse_layers": len(layers), f"{stack}_sparse_layout": layouts[0]}
    return fields
