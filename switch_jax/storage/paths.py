"""Paths as users write them: of this machine's file systems, or URLs of buckets."""

import os
import pathlib
import re
from collections.abc import Iterable

from etils import epath

from switch_jax.errors import UserError
from switch_jax.storage.clients import choose_clients

_BEGINNINGS = ("gs://", "s3://")  # Cloud Storage; S3, and services with its protocol
_BUCKET = "[a-z0-9][-_.a-z0-9]{1,220}[a-z0-9]"


def storage_path(name: str | os.PathLike[str], what: str = "") -> epath.Path:
    """The absolute path; ~ is expanded, and gs://BUCKET/x stays as it is.

    Args:
      name: as the user wrote it.
      what: names it in errors, as in 'MODEL_DIR'.

    Raises:
      UserError: no file can have such a name, or it is a URL of another kind.
    """
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
    if not re.fullmatch(_BUCKET, bucket):
        raise UserError(
            f"{named}: no bucket has the name {bucket!r}: write small letters, digits, hyphens, "
            "dots and underscores, a letter or digit first and last"
        )
    parts = folder.removesuffix("/").split("/") if folder else []
    is_odd = set(folder) & set("*?[]#") or not folder.isprintable()  # clients take * for a pattern
    if is_odd or {"", ".", ".."} & set(parts):
        raise UserError(
            f"{named}: write the folder's path without '//', '.' and '..', without * ? [ ] # and "
            "hidden characters"
        )
    return bucket, "/".join(parts)


def _checked(text: str, what: str) -> str:
    """How errors name the path; raises UserError if no file can have such a name."""
    named = f"{what} {text!r}".strip()
    if not text:
        raise UserError(f"{named}: the path is empty; write one")
    if re.search("[\0\ud800-\udfff]", text):  # JSON, in which a run's files name it, has no other
        raise UserError(f"{named}: a path is UTF-8 text without NUL")
    return named


def resolved(path: epath.Path) -> epath.Path:
    """The path without symbolic links; that of a bucket has none."""
    return path if in_bucket(path) else epath.Path(os.path.realpath(path))
