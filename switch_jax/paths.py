"""Where configs and buckets are on this machine, and files that are whole or not there."""

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from switch_jax.errors import UserError, storage_error

_PACKAGE = Path(__file__).resolve().parent

# In a wheel the configs are package data (switch_jax/gin); in a checkout they are beside it.
GIN_DIR = _PACKAGE / "gin" if (_PACKAGE / "gin").is_dir() else _PACKAGE.parent / "gin"

# Where hosts mount gs://BUCKET, by Cloud Storage FUSE: Vertex AI's custom training does so too.
BUCKETS_DIR = Path("/gcs")


def local_path(name: str | Path, what: str = "") -> Path:
    """The path of a name on this machine: ~ is expanded, and gs://BUCKET/x is /gcs/BUCKET/x.

    Args:
      name: as the user wrote it.
      what: names it in errors, as in 'MODEL_DIR'.

    Raises:
      UserError: the bucket is not mounted there, or it is a place of another kind.
    """
    kind, separator, rest = str(name).partition("://")
    named = f"{what} {str(name)!r}".strip()
    if not separator:
        return Path(name).expanduser()
    if kind != "gs":
        raise UserError(f"{named}: give a folder of this machine's file system, or gs://BUCKET/...")
    bucket, _, path = rest.partition("/")
    mount = BUCKETS_DIR / bucket
    all_mounted = os.path.ismount(BUCKETS_DIR) and mount.is_dir()
    if not bucket or not (all_mounted or os.path.ismount(mount)):  # a plain folder would be lost
        raise UserError(
            f"{named}: the bucket is not mounted at {mount} on this machine; mount it on every "
            f"host: mkdir -p {mount} && gcsfuse --implicit-dirs --rename-dir-limit=200000 {bucket} "
            f"{mount}; the bucket of a MODEL_DIR must have a hierarchical namespace, since in "
            "others a folder is not renamed at once, and a checkpoint may be saved by half"
        )
    return mount / path


def is_file(path: Path | str) -> bool:
    """Whether a file is there, and no folder.

    Raises:
      UserError: the storage does not say; see `storage_error`.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise storage_error(f"{path} cannot be read: {error.strerror}", error) from error
    except ValueError as error:  # NUL, or a character that no file name has
        raise UserError(f"{str(path)!r} is no name of a file: {error}") from error


@contextlib.contextmanager
def told(what: Path | str) -> Iterator[None]:
    """Within, the disk's refusal to write something is a UserError, see `storage_error`."""
    try:
        yield
    except OSError as error:
        raise storage_error(f"{what} cannot be written: {error.strerror}", error) from error


def write_whole(file: Path, text: str) -> None:
    """Writes a file whole, or not at all: a process that is killed leaves the old one.

    Raises:
      OSError: it cannot be written.
    """
    with whole(file) as new:
        new.write(text.encode())


@contextlib.contextmanager
def whole(file: Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the other's place at the end, and is gone after an error.

    Other processes, of other machines too, may do the same at the same time.
    """
    unfinished = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("wb") as new:
            yield new
            new.flush()
            os.fsync(new.fileno())
        unfinished.replace(file)
    finally:
        unfinished.unlink(missing_ok=True)
