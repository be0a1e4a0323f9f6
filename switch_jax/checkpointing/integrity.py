"""Checks that a checkpoint is as it was written, and that it is of the run's model."""

import contextlib
import json
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePath
from typing import Any

import jax

from switch_jax.checkpointing.orbax_patches import release_waiting_threads, without_logs
from switch_jax.run_folder import RunFolder
from switch_jax.runtime.multihost import gather, run_on_all
from switch_jax.utils.differences import differences, listed
from switch_jax.utils.errors import UserError, passing_error, storage_error

Shapes = dict[str, tuple[int, ...]]

# Only these errors of reading show damage: a file is not there, or its content cannot be parsed.
_NO_FILE = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
_PARSER_ERRORS = ValueError | LookupError | TypeError | AttributeError | ArithmeticError
_PARSER_ERRORS |= RecursionError | NotImplementedError
# TensorStore raises ValueError for everything. Its messages begin with the kind of error, or with
# "Error": bytes that are other ones, fewer, or none; and what decoders report under any kind.
_STATUS = re.compile(r"([A-Z_]+): |Error ")
_DAMAGE_STATUSES = ("DATA_LOSS", "OUT_OF_RANGE", "NOT_FOUND")
_DECODER_STATUSES = (None, "INVALID_ARGUMENT", "FAILED_PRECONDITION")
_DECODER = re.compile(r"Error decoding|_decompressStream\(\) failed")
_SYSTEM = re.compile(r"\bos_error_code='(?!2')")


def shapes_of(tree: Any) -> Shapes:
    """Returns the shapes of arrays, or of Orbax's metadata of arrays, by slash-separated path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
        if hasattr(leaf, "shape")
    }


def check_model(
    saved: Shapes, wanted: Shapes, name: str, remedy: str, settings: Sequence[str] = ()
) -> None:
    """Raises UserError if arrays or settings of a checkpoint are not those of the config.

    The message has the checkpoint's `name`, a `remedy`, and the `settings` of the model that
    differ, see `ModelConfig.identity`.
    """
    arrays = sorted(differences(saved, wanted))
    if settings or arrays:
        of_arrays = f"{len(arrays)} of {len(saved | wanted)} arrays differ ({listed(arrays)})"
        what = listed(settings) if settings else of_arrays
        raise UserError(f"{name} is of another model: {what}; {remedy}")


def check_state(
    folder: RunFolder,
    step: int,
    saved: Shapes,
    wanted: Shapes,
    settings: Sequence[str] = (),
    changes: Sequence[str] = (),
) -> None:
    """Raises UserError if a run's checkpoint has another training state, or parameters alone.

    For the message, `settings` are those of the model that differ from the run's, see
    `ModelConfig.identity`, and `changes` all that the start changes in the run's config.
    """
    name = f"the checkpoint of step {step} in {folder.checkpoints}"
    only_parameters = _parts(saved) == {"parameters"}
    if only_parameters and _parts(wanted) != {"parameters"}:
        raise UserError(
            f"{name} holds parameters alone, as `switch_jax convert` writes them: to start from "
            f"them set INITIAL_CHECKPOINT_PATH to {folder}, and MODEL_DIR to another folder"
        )
    is_said = not changes or changes == settings
    remedy = "" if is_said else f"this start changes the run's config ({listed(changes)}): "
    remedy += "write the values of that run, or another MODEL_DIR for a new one"
    check_model(saved, wanted, name, remedy, settings)


def _parts(shapes: Shapes) -> set[str]:
    """Returns the names of the parts of the state that these arrays belong to."""
    return {path.split("/")[0] for path in shapes}


def try_to_read(read: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """Calls a function that reads a checkpoint; all processes call this together.

    Returns what `read` returned, and None; or, where it failed on any process, the damage in one
    line. Raises TransientError where any process could not read for another reason.
    """

    def attempt() -> tuple[Any, str | None]:
        try:
            with without_logs():
                return read(*arguments), None
        except Exception as error:  # Orbax raises errors of many types
            return None, describe_damage(error)

    result, damage = run_on_all(attempt)
    return result, next((d for d in gather(damage) if d is not None), None)


def describe_damage(error: Exception) -> str:
    """Describes the damage that an error of reading shows.

    Raises TransientError if the error is no sign of damage but of missing rights, memory, open
    files or network: the same files may be read later.
    """
    if isinstance(error, UserError):
        raise error
    cause = _root_cause(error)
    if not _is_damage(cause):
        raise passing_error(f"a checkpoint cannot be read: {_in_a_line(cause)}") from error
    return _in_a_line(cause)


def _is_damage(error: BaseException) -> bool:
    """Says whether an error of reading shows that the content is not what was written."""
    if isinstance(error, OSError):
        return isinstance(error, _NO_FILE)
    text = str(error)
    if not (kind := _STATUS.match(text)):
        return isinstance(error, _PARSER_ERRORS)
    if kind[1] in _DAMAGE_STATUSES:
        return not _SYSTEM.search(text)
    return kind[1] in _DECODER_STATUSES and bool(_DECODER.search(text))


@contextlib.contextmanager
def read_errors_explained(folder: PurePath) -> Iterator[None]:
    """Turns an error of Orbax as it reads a folder of checkpoints into a UserError.

    It is a TransientError if it shows no damage, see `describe_damage`.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{folder} cannot be read: {describe_damage(error)}") from error


@contextlib.contextmanager
def storage_errors_explained(what: str, consequence: str = "") -> Iterator[None]:
    """Turns an error of Orbax or TensorStore in the block into a UserError with its first cause.

    `what` begins the message, as in 'PATH cannot be read', and `consequence` ends it.
    """
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        release_waiting_threads()
        cause = _root_cause(error)
        raise storage_error(f"{what}: {_in_a_line(cause)}{consequence}", cause) from error


def _root_cause(error: BaseException) -> BaseException:
    """Returns the first exception of a chain, or the one of a failed storage or machine."""
    chain, cause = [error], _cause(error)
    # One that is raised a second time has what it has caused before as its context.
    while cause is not None and {cause, cause.__cause__}.isdisjoint(chain):
        chain.append(cause)
        cause = _cause(cause)
    return next(filter(_is_failure, reversed(chain)), chain[-1])


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _is_failure(error: BaseException) -> bool:
    """Says whether the storage or the machine failed, not only a function that was to read."""
    says_so = isinstance(error, OSError | MemoryError) or _STATUS.match(str(error))
    return bool(says_so) and not _is_damage(error)


def _in_a_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    # TensorStore appends all that it was opened with.
    text = lines[0].partition(" [tensorstore_spec=")[0] if lines else ""
    if len(text) > 400:
        text = f"{text[:150]} ... {text[-240:]}"  # the reason is at the end
    # The text of a KeyError is the key alone.
    return text if " " in text else f"{type(error).__name__} {text}".strip()


def add_checksum(content: Any) -> dict[str, Any]:
    """Adds a checksum to JSON content, which a flipped bit may leave valid with another number."""
    text = json.dumps(content)
    return {"text": text, "crc32": zlib.crc32(text.encode())}


def verify_checksum(stored: Any) -> Any:
    """Returns the content that `add_checksum` was given; ValueError if it was changed since."""
    try:
        if zlib.crc32(stored["text"].encode()) == stored["crc32"]:
            return json.loads(stored["text"])
    except (KeyError, TypeError, AttributeError):
        pass
    raise ValueError("its notes cannot be read")
