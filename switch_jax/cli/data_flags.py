"""The flags that say where prepared data lie, as users of t5x type them."""

import argparse
import os
from typing import Any


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
    """Where data are looked for, as JSON: what is read hangs on it."""
    tfds = args.tfds_data_dir or os.environ.get("TFDS_DATA_DIR")
    caches = args.seqio_additional_cache_dirs.split(",")
    return {
        "tfds_data_dir": tfds and _absolute(tfds),
        "seqio_additional_cache_dirs": [_absolute(folder) for folder in caches if folder],
    }


def _absolute(folder: str) -> str:
    return folder if "://" in folder else os.path.abspath(os.path.expanduser(folder))


def apply(args: argparse.Namespace) -> None:
    """Tells seqio; for tasks that are registered already, too.

    Args:
      args: with the flags above.
    """
    import switch_jax.data  # noqa: F401, I001  first: TensorFlow starts quietly
    import seqio

    if args.tfds_data_dir:
        seqio.set_tfds_data_dir_override(os.path.expanduser(args.tfds_data_dir))
    folders = args.seqio_additional_cache_dirs.split(",")
    seqio.add_global_cache_dirs([os.path.expanduser(folder) for folder in folders if folder])
