"""Lists tasks, shows their examples, and makes vocabularies and caches from them.

    switch_jax tasks                    lists what can be read here, and the rest by families
    switch_jax tasks 'glue*'            lists the tasks and mixtures whose names match
    switch_jax tasks NAME               shows examples as the model sees them
    switch_jax tasks vocabulary NAME --size 8000 --output FILE
                                        trains a SentencePiece vocabulary on its text
    switch_jax tasks cache NAME --output DIR
                                        writes its tokens, for runs with USE_CACHED_TASKS

Tasks of your own are found by --import. Nothing is downloaded.
"""

import argparse
import os

from switch_jax.cli import data_flags
from switch_jax.cli.inference_flags import fields_named_as_flags
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import COUNT, Range
from switch_jax.utils.imports import import_module

_LEAST_WITH_BYTES = 2048  # pieces of a vocabulary; of fewer, bytes would be more than an eighth
_SIZES = Range(4, 2**20)  # padding, EOS, unknown, and one more


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "words",
        nargs="*",
        metavar="[vocabulary|cache] NAME",
        help="a task or mixture, and what to make from it",
    )
    add("--split", help="split to read; default: validation for examples, train for a vocabulary")
    add(
        "--examples",
        type=int,
        help="number of examples to show (default: 3), or to train a vocabulary on (100000)",
    )
    add(
        "--import",
        dest="modules",
        metavar="MODULE",
        action="append",
        default=[],
        help="a module of yours that registers tasks, in this directory or installed; repeatable",
    )
    data_flags.add_data_flags(parser)
    add(
        "--c4_json_dir",
        metavar="DIR",
        help="folder or bucket with a copy of allenai/c4, as the macro C4_JSON_DIR",
    )
    show = parser.add_argument_group("to show examples")
    show.add_argument(
        "--inputs", type=int, default=128, help="tokens of the inputs; default: %(default)s"
    )
    show.add_argument(
        "--targets", type=int, default=32, help="tokens of the targets; default: %(default)s"
    )
    show.add_argument(
        "--vocabulary",
        metavar="NAME",
        help="replaces the task's own: t5, mt5, byte, or the path of a SentencePiece model",
    )
    make = parser.add_argument_group("to train a vocabulary, or to make a cache")
    make.add_argument(
        "--output", metavar="FILE", help="file of the vocabulary; folder or bucket of the cache"
    )
    make.add_argument(
        "--size", type=int, metavar="N", help="pieces of the vocabulary, without T5's sentinels"
    )
    make.add_argument(
        "--byte_fallback",
        action=argparse.BooleanOptionalAction,
        help="encode rare characters as bytes, which are 256 of the pieces, instead of as unknown; "
        f"default: from {_LEAST_WITH_BYTES} pieces on",
    )
    make.add_argument(
        "--beam_pipeline_options",
        metavar="NAME=VALUE,...",
        default="",
        help="options of Apache Beam for a cache, as `tfds build` takes them: "
        "runner=DataflowRunner,project=...; default: one process here",
    )


def main(args: argparse.Namespace) -> int:
    from switch_jax.data.catalogue.task_list import task_list  # loads TensorFlow

    with fields_named_as_flags():
        COUNT.check("examples", args.examples)
        _SIZES.check("size", args.size)
    data_flags.apply(args)
    for module in args.modules:
        import_module(module)
    match args.words:
        case []:
            print(task_list(c4_json_dir=args.c4_json_dir))
        case ["vocabulary", name]:
            _train_vocabulary(name, args)
        case ["cache", name]:
            _cache(name, args)
        case [pattern] if "*" in pattern:
            print(task_list(pattern, args.c4_json_dir))
        case [name] if name not in ("vocabulary", "cache"):
            _show(name, args)
        case words:
            raise UserError(
                f"`switch_jax tasks {' '.join(words)}`: write one task or mixture, alone or after "
                "`vocabulary` or `cache`, or nothing to list all"
            )
    return 0


def _show(name: str, args: argparse.Namespace) -> None:
    from switch_jax.config import DataConfig
    from switch_jax.data.catalogue.task_preview import first_examples

    lengths = {"inputs": args.inputs, "targets": args.targets}
    split = args.split or "validation"
    config = DataConfig(
        name, lengths, split=split, vocabulary=args.vocabulary, c4_json_dir=args.c4_json_dir
    )
    print(first_examples(config, 3 if args.examples is None else args.examples))


def _train_vocabulary(name: str, args: argparse.Namespace) -> None:
    from tqdm import tqdm

    from switch_jax.data.catalogue import vocabulary_training as training
    from switch_jax.storage import exists, storage_path, write_file
    from switch_jax.tasks.named_vocabularies import SENTINELS

    if not args.output or args.size is None:
        raise UserError(
            f"a vocabulary needs a size and a file: write `switch_jax tasks vocabulary {name} "
            "--size 8000 --output FILE`"
        )
    output = os.path.expanduser(args.output)
    if exists(storage_path(output)):
        raise UserError(f"{output} exists already, and runs may use it: choose another name")
    examples = 100_000 if args.examples is None else args.examples
    lines = training.lines(name, args.split or "train", examples, args.c4_json_dir)
    text = list(tqdm(lines, desc=f"reading {name}", unit=" lines", disable=None))
    characters = sum(map(len, text))
    print(f"training {args.size} pieces on {characters} characters")
    with_bytes = args.byte_fallback
    if with_bytes is None:
        with_bytes = args.size >= _LEAST_WITH_BYTES
    model = training.train(text, args.size, with_bytes)
    write_file(storage_path(output), model, output)
    print(
        f"wrote {output}; to use it, set VOCABULARY to this path and NUM_EMBEDDINGS to "
        f"{args.size + SENTINELS} or more (with T5's sentinels)"
    )


def _cache(name: str, args: argparse.Namespace) -> None:
    from switch_jax.data.catalogue import caching

    if not args.output:
        raise UserError(
            f"a cache needs a folder: write `switch_jax tasks cache {name} --output DIR`"
        )
    output = os.path.expanduser(args.output)
    beam_options = list(filter(None, args.beam_pipeline_options.split(",")))
    for folder in caching.cache(name, output, args.modules, beam_options, args.c4_json_dir):
        print(f"wrote {folder}")
    print(
        "to train on it, set USE_CACHED_TASKS to True and give "
        f"--seqio_additional_cache_dirs={args.output}"
    )
