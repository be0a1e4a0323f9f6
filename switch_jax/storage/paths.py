"""Paths as users write them: of this machine's file systems, or URLs of buckets."""

import ipaddress
import os
import pathlib
import re
from collections.abc import Iterable

from etils import epath

from switch_jax.errors import UserError
from switch_jax.storage.clients import choose_clients

BUCKET_SCHEMES = ("gs", "s3")  # Cloud Storage; S3, and services with its protocol
_BEGINNINGS = tuple(f"{scheme}://" for scheme in BUCKET_SCHEMES)
MAX_NAME_BYTES = 255  # of a file, on all usual file systems

# docs.cloud.google.com/storage/docs/buckets#naming; names with dots may have 222 characters, and
# their parts 63. Names that Google reserves (goog...) are not refused: such a bucket may exist.
_PART = r"[a-z0-9]([-_a-z0-9]{0,61}[a-z0-9])?"
_BUCKET = rf"(?=.{{3,222}}$){_PART}(\.{_PART})*"


def storage_path(name: str | os.PathLike[str], what: str = "") -> epath.Path:
    """The absolute path; ~ is expanded, and gs://BUCKET/x stays as it is.

    Args:
      name: as the user wrote it.
      what: names it in errors, as in 'MODEL_DIR'.

    Raises:
      UserError: no file can have such a name, or it is a URL of another kind.
    """
    text = os.fspath(name)
    if not _is_in_bucket(text, what):
        return home_path(text, what).absolute()
    bucket, folder = bucket_path(text, what)
    choose_clients()
    return epath.Path(f"{text.partition('://')[0]}://{bucket}") / folder


def in_bucket(path: pathlib.PurePath | str) -> bool:
    """Whether a path that `storage_path` returned, or one below it, is that of a bucket."""
    return str(path).startswith(_BEGINNINGS)


def on_this_machine(paths: Iterable[str]) -> list[str]:
    """Those of the paths that are in no bucket."""
    return [path for path in paths if not in_bucket(path)]


def no_model_there(name: str | os.PathLike[str]) -> UserError:
    """The error that the folder to take a model from is not there."""
    return UserError(
        f"there is no folder {name} to take a model from: give the MODEL_DIR of a run, or the "
        "folder of a Hugging Face or T5X model; `hf download NAME --local-dir FOLDER` brings one "
        "of Hugging Face to this machine"
    )


def _is_in_bucket(name: str, what: str) -> bool:
    """Whether the name is the URL of a bucket; raises UserError if it is a URL of another kind."""
    kind, separator, _ = name.partition("://")
    if separator and kind not in BUCKET_SCHEMES:
        raise UserError(
            f"{_named(name, what)}: write a path of this machine's file system, gs://BUCKET/... or "
            "s3://BUCKET/..."
        )
    if not separator and (found := re.match(r"(gs|s3)(:/|//)", name)):
        raise UserError(
            f"{_named(name, what)}: write {found[1]}://{name[found.end() :]} for a bucket, or "
            f"./{name} for a folder of this machine"
        )
    return bool(separator)


def home_path(name: str, what: str = "") -> epath.Path:
    """The path of a file that is in no bucket: ~ and ~USER are expanded.

    Args:
      name: as the user wrote it.
      what: names it in errors, as in 'MODEL_DIR'.

    Raises:
      UserError: there is no such user, or no file can have such a name.
    """
    named = _checked(name, what)
    try:
        return epath.Path(pathlib.Path(name).expanduser())
    except RuntimeError:
        user = pathlib.Path(name).parts[0]
        raise UserError(
            f"{named}: {user} is the home folder of a user, and this machine knows none; write the "
            f"whole path, or ./{user} for a folder of that name"
        ) from None


def bucket_path(url: str, what: str = "") -> tuple[str, str]:
    """BUCKET and FOLDER of gs://BUCKET/FOLDER or s3://BUCKET/FOLDER; FOLDER may be "".

    Args:
      url: as the user wrote it.
      what: names it in errors, as in 'MODEL_DIR'.

    Raises:
      UserError: no bucket, or no folder in it, can have such a name.
    """
    named = _checked(url, what)
    bucket, _, folder = url.partition("://")[2].partition("/")
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
    if set(folder) & set("*?[]#"):
        raise UserError(f"{named}: clients take * ? [ ] # in a bucket for patterns; rename it")
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


def resolved(path: epath.Path) -> epath.Path:
    """The path without symbolic links; that of a bucket has none."""
    return path if in_bucket(path) else epath.Path(os.path.realpath(path))
