"""What a checkpoint says of its arrays, and reading that may fail on one process alone."""

import json
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax

from switch_jax.checkpointing.orbax_patches import first_cause, root, without_logs
from switch_jax.errors import UserError, is_transient, storage_error
from switch_jax.runtime.processes import gather, run_on_all

Shapes = dict[str, tuple[int, ...]]


def shapes_of(tree: Any) -> Shapes:
    """Shapes by slash-separated path, of arrays or of what Orbax says of them."""
    leaves = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: hasattr(x, "shape"))[0]
    return {path_name(path): tuple(leaf.shape) for path, leaf in leaves if hasattr(leaf, "shape")}


def path_name(path: tuple[Any, ...]) -> str:
    """A path of `jax.tree_util`, slash-separated."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_model(saved: Shapes, wanted: Shapes, name: str, remedy: str) -> None:
    """Raises UserError where arrays differ: names the first, with both shapes, and the remedy.

    Args:
      saved: of the checkpoint.
      wanted: of the config.
      name: what to call the checkpoint.
      remedy: what to do instead.
    """
    differing = sorted(k for k in saved.keys() | wanted.keys() if saved.get(k) != wanted.get(k))
    if differing:
        examples = "; ".join(
            f"{path}: {saved.get(path, 'absent')} in the checkpoint, "
            f"{wanted.get(path, 'absent')} in the config"
            for path in differing[:3]
        )
        raise UserError(
            f"{name} is of another model: {len(differing)} of {len(wanted)} arrays differ "
            f"({examples}); {remedy}"
        )


def tried(read: Callable[..., Any], *arguments: Any) -> tuple[Any, str | None]:
    """What it gives, and why it could not be read, on any process; None if it could on all.

    Raises:
      TransientError: see `damage`; on every process where it is one on any.
    """

    def attempt() -> tuple[Any, str | None]:
        try:
            with without_logs():
                return read(*arguments), None
        except Exception as error:  # Orbax's own kinds of errors are many
            return None, damage(error)

    result, reason = run_on_all(attempt)
    return result, next((r for r in gather(reason) if r is not None), None)


def read_descriptions(checkpoint: Path) -> None:
    """Raises OSError where the storage fails: Orbax then reads a description as if it were empty.

    Args:
      checkpoint: its folder; the files in it and in the folders right in it are read.
    """
    for file in (*checkpoint.glob("*"), *checkpoint.glob("*/*")):
        try:
            if not file.is_dir():
                file.read_bytes()
        except OSError as error:
            error.filename = str(file)  # an error of reading does not name it
            raise


def damage(error: Exception) -> str:
    """What is damaged, by the error of reading it, in one line.

    Raises:
      TransientError: nothing need be: the storage failed.
    """
    reason, cause = first_cause(error), root(error)
    if is_transient(cause):
        raise storage_error(f"a checkpoint cannot be read: {reason}", cause) from error
    return reason


def packed(content: Any) -> dict[str, Any]:
    """With a checksum: a flipped bit may leave it JSON, with another number in it."""
    text = json.dumps(content)
    return {"text": text, "crc32": zlib.crc32(text.encode())}


def unpacked(packed: Any) -> Any:
    """What was packed; ValueError if it is not as it was."""
    try:
        if zlib.crc32(packed["text"].encode()) == packed["crc32"]:
            return json.loads(packed["text"])
    except (KeyError, TypeError, AttributeError):
        pass
    raise ValueError("its notes cannot be read")
