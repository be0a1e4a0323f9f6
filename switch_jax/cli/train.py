"""Pretrain a model as gin files say.

    switch_jax train --gin_file=runs/demo_switch.gin
    switch_jax train --gin_file=models/switch_base.gin --gin_file=runs/pretrain.gin \\
        --gin.MODEL_DIR=/tmp/run --gin.MIXTURE_OR_TASK_NAME=english_span_corruption \\
        --gin.NUM_EXPERTS=8

Later files and values win. Files are looked for in the current directory, in --gin_search_paths,
and among the configs that come with switch_jax.
"""

import argparse

from switch_jax.cli import gin_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Gin flags, and --dry_run."""
    gin_flags.add_gin_flags(parser)
    parser.add_argument(
        "--dry_run", action="store_true", help="check the config, print it, and train nothing"
    )


def main(args: argparse.Namespace) -> int:
    """Configures and trains."""
    from switch_jax.partitioning.allocator import keep_freed_memory

    keep_freed_memory()  # before the configs load TensorFlow, which starts threads
    parts = gin_flags.build(args)

    from switch_jax.cli import gin_config
    from switch_jax.training.loop import check, train

    if args.dry_run:
        check(**{name: part for name, part in parts.items() if name != "loss"})
        print(gin_config.config_text())
        return 0
    train(**parts, config_text=gin_config.config_text())
    return 0
