"""Pretrain a model as gin files say.

    switch_jax train --gin_file=runs/demo_switch.gin
    switch_jax train --gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin \\
        --gin.MODEL_DIR=/tmp/run --gin.MIXTURE_OR_TASK_NAME=english_span_corruption \\
        --gin.NUM_EXPERTS=8

Later files and values win. Files are looked for in the current directory, in --gin_search_paths,
and among the configs that come with switch_jax.
"""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Flags as users of t5x type them."""
    parser.add_argument(
        "--gin_file", action="append", default=[], metavar="FILE", help="a gin file; repeat it"
    )
    parser.add_argument(
        "--gin_search_paths",
        default="",
        metavar="DIR,DIR",
        help="folders to look for gin files in, separated by commas",
    )
    parser.add_argument(
        "--gin_bindings",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a macro or parameter to set; --gin.NAME=VALUE is the same",
    )
    parser.add_argument(
        "--dry_run", action="store_true", help="check the config, print it, and train nothing"
    )


def main(args: argparse.Namespace) -> int:
    """Configures and trains."""
    from switch_jax.cli import gin_config  # TensorFlow loads here, not for --help

    gin_config.parse(
        args.gin_file,
        args.gin_bindings,
        [path for path in args.gin_search_paths.split(",") if path],
    )
    parts = gin_config.build()

    from switch_jax.training.loop import check, train

    if args.dry_run:
        check(**{name: part for name, part in parts.items() if name != "loss"})
        print(gin_config.config_text())
        return 0
    train(**parts, config_text=gin_config.config_text())
    return 0
