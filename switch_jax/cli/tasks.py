"""`switch_jax tasks`: what is registered, and what its examples look like."""

import argparse

from switch_jax.cli import data_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="task or mixture; without it, all are listed")
    parser.add_argument("--split", default="validation", help="default: %(default)s")
    parser.add_argument("--examples", type=int, default=3, help="how many; default: %(default)s")
    parser.add_argument(
        "--inputs", type=int, default=128, help="tokens in the inputs; default: %(default)s"
    )
    parser.add_argument(
        "--targets", type=int, default=32, help="tokens in the targets; default: %(default)s"
    )
    parser.add_argument(
        "--vocabulary",
        metavar="NAME",
        help="in place of the task's own: t5, mt5, byte, or a SentencePiece model's path",
    )
    parser.add_argument(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module that registers tasks of yours, in this directory or installed; repeatable",
    )
    data_flags.add_data_flags(parser)


def main(args: argparse.Namespace) -> int:
    # Here, since TensorFlow takes seconds to import and `--help` needs none of it.
    from switch_jax.data import inspect, registry
    from switch_jax.data.pipeline import DataConfig

    data_flags.apply(args)
    for module in args.modules:
        registry.import_tasks(module)
    if args.name is None:
        print(inspect.describe())
    else:
        lengths = {"inputs": args.inputs, "targets": args.targets}
        config = DataConfig(args.name, lengths, split=args.split, vocabulary=args.vocabulary)
        print(inspect.show(config, args.examples))
    return 0
