"""Where configs, files and buckets are on this machine."""

import ipaddress
import os
import re
import stat
from pathlib import Path

from switch_jax.errors import UserError, storage_error

_PACKAGE = Path(__file__).resolve().parent

# In a wheel the configs are package data (switch_jax/gin); in a checkout they are beside it.
GIN_DIR = _PACKAGE / "gin" if (_PACKAGE / "gin").is_dir() else _PACKAGE.parent / "gin"

# Where hosts mount gs://BUCKET, by Cloud Storage FUSE: Vertex AI's custom training does so too.
BUCKETS_DIR = Path("/gcs")

MAX_NAME_BYTES = 255  # of a file, on all usual file systems

# docs.cloud.google.com/storage/docs/buckets#naming; names with dots may have 222 characters, and
# their parts 63. Names that Google reserves (goog...) are not refused: such a bucket may exist.
_PART = r"[a-z0-9]([-_a-z0-9]{0,61}[a-z0-9])?"
_BUCKET = rf"(?=.{{3,222}}$){_PART}(\.{_PART})*"


def local_path(name: str | Path, what: str = "") -> Path:
    """The path on this machine: ~ is expanded, and gs://BUCKET/x becomes /gcs/BUCKET/x.

    Args:
      name: as the user wrote it.
      what: names it in errors, as in 'MODEL_DIR'.

    Raises:
      UserError: the bucket is not mounted there, it is a URL of another kind, or no file can have
        such a name.
    """
    text = str(name)
    if not _is_in_bucket(text, what):
        return home_path(text, what)
    bucket, folder = bucket_path(text, what)
    mount = BUCKETS_DIR / bucket
    all_mounted = os.path.ismount(BUCKETS_DIR) and mount.is_dir()
    if not (all_mounted or os.path.ismount(mount)):  # a plain folder there is not the bucket
        raise UserError(
            f"{_named(text, what)}: the bucket is not mounted at {mount} on this machine; mount it "
            f"on every host: mkdir -p {mount} && gcsfuse --implicit-dirs "
            f"--rename-dir-limit=200000 {bucket} {mount}; the bucket of a MODEL_DIR must have a "
            "hierarchical namespace, since in others a folder is not renamed at once, and a "
            "checkpoint may be saved by half"
        )
    return mount / folder


def check_path(name: str, what: str = "") -> None:
    """Raises UserError if no file can have this path, on this machine or in a bucket.

    Args:
      name: as the user wrote it.
      what: names it in errors, as in 'MODEL_DIR'.
    """
    if _is_in_bucket(name, what):
        bucket_path(name, what)
    else:
        home_path(name, what)


def no_model_there(name: str | Path) -> UserError:
    """The error that the folder to take a model from is not there."""
    return UserError(
        f"there is no folder {name} to take a model from: give the MODEL_DIR of a run, or the "
        "folder of a Hugging Face or T5X model; `hf download NAME --local-dir FOLDER` brings one "
        "of Hugging Face to this machine"
    )


def _is_in_bucket(name: str, what: str) -> bool:
    """Whether the name is a gs:// URL; raises UserError if it is a URL of another kind."""
    kind, separator, _ = name.partition("://")
    if separator and kind != "gs":
        raise UserError(
            f"{_named(name, what)}: write a path of this machine's file system, or gs://BUCKET/..."
        )
    return bool(separator)


def home_path(name: str, what: str = "") -> Path:
    """The path of a file that is in no bucket: ~ and ~USER are expanded.

    Args:
      name: as the user wrote it.
      what: names it in errors, as in 'MODEL_DIR'.

    Raises:
      UserError: there is no such user, or no file can have such a name.
    """
    named = _checked(name, what)
    try:
        return Path(name).expanduser()
    except RuntimeError:
        user = Path(name).parts[0]
        raise UserError(
            f"{named}: {user} is the home folder of a user, and this machine knows none; write the "
            f"whole path, or ./{user} for a folder of that name"
        ) from None


def bucket_path(url: str, what: str = "") -> tuple[str, str]:
    """BUCKET and FOLDER of gs://BUCKET/FOLDER; FOLDER may be "".

    Args:
      url: as the user wrote it.
      what: names it in errors, as in 'MODEL_DIR'.

    Raises:
      UserError: no bucket, or no folder in it, can have such a name.
    """
    named = _checked(url, what)
    bucket, _, folder = url.removeprefix("gs://").partition("/")
    if not re.fullmatch(_BUCKET, bucket) or _is_ip_address(bucket):
        raise UserError(
            f"{named}: no bucket has the name {bucket!r}; it is 3 to 63 small letters, digits, "
            "hyphens, dots and underscores, a letter or digit first and last"
        )
    parts = folder.removesuffix("/").split("/") if folder else []
    if not {"", ".", ".."}.isdisjoint(parts):
        raise UserError(f"{named}: write the folder's path without '//', '.' and '..'")
    if not folder.isprintable():
        raise UserError(f"{named}: a folder in a bucket has no line breaks or hidden characters")
    return bucket, "/".join(parts)


def _checked(text: str, what: str) -> str:
    """How errors name the path; raises UserError if no file can have such a name."""
    named = _named(text, what)
    if not text:
        raise UserError(f"{named}: the path is empty; write one")
    if "\0" in text:
        raise UserError(f"{named}: a path holds no NUL character: leave it out")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{named}: these are not all characters of UTF-8, in which a run's files name it: "
            "rename the folder"
        ) from None
    longest = max(len(part.encode()) for part in text.split("/"))
    if longest > MAX_NAME_BYTES:
        raise UserError(
            f"{named}: a name in it has {longest:,} bytes; a disk takes {MAX_NAME_BYTES} at most"
        )
    return named


def _named(text: str, what: str) -> str:
    return f"{what} {text!r}".strip()


def _is_ip_address(bucket: str) -> bool:
    try:
        ipaddress.IPv4Address(bucket)
    except ValueError:
        return False
    return True


def is_file(path: Path | str) -> bool:
    """Whether the path is that of a file, not of a folder.

    Raises:
      UserError: the storage fails; see `storage_error`.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise storage_error(f"{path} cannot be read: {error.strerror}", error) from error
    except ValueError as error:  # NUL, or a character that no file name has
        raise UserError(f"{str(path)!r} is no name of a file: {error}") from error
