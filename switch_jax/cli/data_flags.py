"""The flags that say where prepared data lie, as users of t5x type them."""

import argparse
import os
from typing import Any

from switch_jax.paths import bucket_path, home_path


def add_data_flags(parser: argparse.ArgumentParser) -> None:
    """--tfds_data_dir and --seqio_additional_cache_dirs."""
    parser.add_argument(
        "--tfds_data_dir",
        metavar="DIR",
        help="folder or bucket with data sets that TFDS prepared; default: $TFDS_DATA_DIR",
    )
    parser.add_argument(
        "--seqio_additional_cache_dirs",
        metavar="DIR,DIR",
        default="",
        help="folders or buckets with cached tasks, separated by commas",
    )


def as_arguments(args: argparse.Namespace) -> list[str]:
    """The flags above as they were typed, for a command that calls another."""
    names = ("tfds_data_dir", "seqio_additional_cache_dirs")
    return [f"--{name}={getattr(args, name)}" for name in names if getattr(args, name)]


def places(args: argparse.Namespace) -> dict[str, Any]:
    """Where data are looked for, as JSON: what is read depends on it.

    Raises:
      UserError: there can be no such folder.
    """
    tfds = args.tfds_data_dir or os.environ.get("TFDS_DATA_DIR")
    return {
        "tfds_data_dir": tfds and _absolute("--tfds_data_dir", tfds),
        "seqio_additional_cache_dirs": [_absolute(*folder) for folder in _cache_dirs(args)],
    }


def apply(args: argparse.Namespace) -> None:
    """Tells seqio; for tasks that are registered already, too.

    Args:
      args: with the flags above.

    Raises:
      UserError: there can be no such folder.
    """
    import switch_jax.data  # noqa: F401, I001  first: TensorFlow starts quietly
    import seqio

    if args.tfds_data_dir:
        seqio.set_tfds_data_dir_override(_expanded("--tfds_data_dir", args.tfds_data_dir))
    seqio.add_global_cache_dirs([_expanded(*folder) for folder in _cache_dirs(args)])


def _cache_dirs(args: argparse.Namespace) -> list[tuple[str, str]]:
    """The flag's name and a folder, for each folder."""
    folders = args.seqio_additional_cache_dirs.split(",")
    return [("--seqio_additional_cache_dirs", folder) for folder in folders if folder]


def _absolute(flag: str, folder: str) -> str:
    return folder if "://" in folder else os.path.abspath(_expanded(flag, folder))


def _expanded(flag: str, folder: str) -> str:
    """The folder with ~ expanded; a bucket's stays, since TensorFlow itself reads it."""
    if folder.startswith("gs://"):
        bucket_path(folder, flag)
    return folder if "://" in folder else str(home_path(folder, flag))
