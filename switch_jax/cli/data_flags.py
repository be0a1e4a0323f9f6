"""The flags for the folders of prepared data, with the names that they have in t5x."""

import argparse

from switch_jax.storage import storage_path


def add_data_flags(parser: argparse.ArgumentParser) -> None:
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
    """Returns the data flags as they were given, for a command that calls another."""
    names = ("tfds_data_dir", "seqio_additional_cache_dirs")
    return [f"--{name}={getattr(args, name)}" for name in names if getattr(args, name)]


def apply(args: argparse.Namespace) -> None:
    """Sets the folders in seqio, also for tasks that are registered already."""
    from switch_jax.utils.tensorflow_setup import seqio

    if args.tfds_data_dir:
        prepared = storage_path(args.tfds_data_dir, "--tfds_data_dir")  # which expands ~
        seqio.set_tfds_data_dir_override(str(prepared))
    caches = [folder for folder in args.seqio_additional_cache_dirs.split(",") if folder]
    flag = "--seqio_additional_cache_dirs"
    seqio.add_global_cache_dirs([str(storage_path(folder, flag)) for folder in caches])
