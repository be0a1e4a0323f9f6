"""Reads paths as users write them: of this machine's file systems, or URLs of buckets."""

import os
import pathlib
import re
from collections.abc import Iterable

from etils import epath

from switch_jax.storage.clients import choose_clients
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import short_repr

_BEGINNINGS = ("gs://", "s3://")  # Cloud Storage; S3, and services with its protocol


def storage_path(name: str | os.PathLike[str], what: str = "") -> epath.Path:
    """Returns the absolute path; ~ is expanded, and gs://BUCKET/x stays as it is.

    `what` names it in errors, as in 'MODEL_DIR'. Raises UserError: no file can have such a name, or
    it is a URL of another kind.
    """
    if not isinstance(name, str | os.PathLike):
        raise UserError(f"{what or 'path'} = {short_repr(name)}: write a path")
    text = os.fspath(name)
    if in_bucket(text):
        bucket, folder = bucket_path(text, what)
        choose_clients()
        return epath.Path(f"{text.partition('://')[0]}://{bucket}") / folder
    named = _checked(text, what)
    if re.match(r"[A-Za-z][\w+.-]*:/", text):
        raise UserError(
            f"{named}: write a path of this machine's file system, gs://BUCKET/... or "
            "s3://BUCKET/..."
        )
    try:
        return epath.Path(pathlib.Path(text).expanduser()).absolute()
    except RuntimeError:
        raise UserError(f"{named}: this machine has no user of that name") from None


def in_bucket(path: pathlib.PurePath | str) -> bool:
    """Says whether a path that `storage_path` returned, or one below it, is in a bucket."""
    return str(path).startswith(_BEGINNINGS)


def local_paths(paths: Iterable[str]) -> list[str]:
    """Returns the paths that are in no bucket."""
    return [path for path in paths if not in_bucket(path)]


def missing_model(name: str | os.PathLike[str]) -> UserError:
    """Makes the error for a folder that is not there, from which a model was to be read."""
    return UserError(
        f"there is no folder {name} to take a model from: give the MODEL_DIR of a run, or the "
        "folder of a Hugging Face or T5X model; `hf download NAME --local-dir FOLDER` brings one "
        "of Hugging Face to this machine"
    )


def bucket_path(url: str, what: str = "") -> tuple[str, str]:
    """Splits gs://BUCKET/FOLDER or s3://BUCKET/FOLDER into BUCKET and FOLDER, which may be "".

    Raises UserError if clients would take it for another path; `what` names it, as in 'MODEL_DIR'.
    """
    named = _checked(url, what)
    name = url.partition("://")[2].removesuffix("/")
    is_odd = set(name) & set("*?[]#") or not name.isprintable()  # clients take * for a pattern
    if is_odd or {"", ".", ".."} & set(name.split("/")):
        raise UserError(
            f"{named}: write the name of the bucket, and the folder's path without '//', '.' and "
            "'..', without * ? [ ] # and hidden characters"
        )
    bucket, _, folder = name.partition("/")
    return bucket, folder


def _checked(text: str, what: str) -> str:
    """Returns how errors name the path; raises UserError if no file can have such a name."""
    named = f"{what} {text!r}".strip()
    if not text:
        raise UserError(f"{named}: the path is empty; write one")
    if re.search("[\0\ud800-\udfff]", text):  # JSON, in which a run's files name it, has no other
        raise UserError(f"{named}: a path is UTF-8 text without NUL")
    return named


def resolved(path: epath.Path) -> epath.Path:
    """Returns the path without symbolic links, which a bucket does not have."""
    return path if in_bucket(path) else epath.Path(os.path.realpath(path))
