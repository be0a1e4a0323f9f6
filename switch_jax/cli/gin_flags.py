"""The flags for gin files and bindings, which are those of t5x."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it loads gin
    from switch_jax.gin_config import GinConfig


def add_gin_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--gin_file", action="append", default=[], metavar="FILE", help="a gin file; repeat it")
    add(
        "--gin_search_paths",
        default="",
        metavar="DIR,DIR",
        help="folders to look for gin files in, separated by commas",
    )
    add(
        "--gin_bindings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a macro or parameter to set; --gin.NAME=VALUE is the same",
    )


def as_arguments(args: argparse.Namespace) -> list[str]:
    """Returns the gin flags as arguments, for a command that calls another."""
    paths = [f"--gin_search_paths={args.gin_search_paths}"] * bool(args.gin_search_paths)
    files = [f"--gin_file={file}" for file in args.gin_file]
    return [*paths, *files, *(f"--gin.{binding}" for binding in args.gin_bindings)]


def search_paths(args: argparse.Namespace) -> list[str]:
    return [path for path in args.gin_search_paths.split(",") if path]


def expand_bindings(argv: Sequence[str]) -> list[str]:
    """Turns --gin.NAME=VALUE, which users of t5x know, into --gin_bindings=NAME=VALUE."""
    return [re.sub(r"^--gin\.", "--gin_bindings=", arg) for arg in argv]


def announce_loading() -> None:
    """Explains on a terminal why the command takes some seconds to begin."""
    if sys.stderr.isatty():
        print("loading TensorFlow and JAX, which takes some seconds", file=sys.stderr, flush=True)


def read(args: argparse.Namespace, unneeded: Sequence[str] = ()) -> GinConfig:
    """The config that the flags describe; see `gin_config.read`, with `keep`."""
    from switch_jax import gin_config

    return gin_config.read(
        args.gin_file, args.gin_bindings, search_paths(args), unneeded, keep=True
    )
