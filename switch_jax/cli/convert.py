"""Convert a checkpoint of Hugging Face or T5X into ours, or ours into a Hugging Face folder.

    switch_jax convert switch-base-8 runs/switch_base_8      # Hugging Face's folder -> a MODEL_DIR
    switch_jax convert checkpoint_500100 runs/from_t5x       # T5X's folder -> a MODEL_DIR
    switch_jax convert runs/tuned tuned_hugging_face         # the newest checkpoint -> a folder
    switch_jax convert --inspect switch-base-8               # what is in there

The models are Switch Transformers, T5 (1.0 and 1.1) and mT5. Every tensor is accounted for: one
that is missing, left over or of another shape is named, and nothing is written. The target is a new
folder, and complete once it is there. docs/converting.md says what differs between the formats.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from etils import epath

from switch_jax.cli import gin_flags, inference_flags
from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder, config_of_run
from switch_jax.storage import (
    exists,
    is_file,
    is_folder,
    no_model_there,
    storage_path,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The source, the target, and what cannot be inferred from them."""
    parser.add_argument(
        "source", metavar="SOURCE", help="a Hugging Face folder, a T5X checkpoint, or a MODEL_DIR"
    )
    parser.add_argument("target", metavar="TARGET", nargs="?", help="the folder to write")
    parser.add_argument(
        "--inspect",
        action="store_true",
        help="describe SOURCE by its headers, name its parameters, and write nothing",
    )
    inference_flags.add_checkpoint_flag(parser, "of a MODEL_DIR: latest, best or a step")
    parser.add_argument(
        "--model_type",
        choices=["switch_transformers", "t5", "mt5"],
        help="of the Hugging Face folder to write; default: switch_transformers or t5",
    )
    gin_flags.add_gin_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Converts, or describes."""
    path = storage_path(args.source, "SOURCE")
    if not exists(path):
        raise no_model_there(args.source)
    if args.inspect == bool(args.target):
        raise UserError("write --inspect SOURCE to describe it, or SOURCE TARGET to convert it")
    from switch_jax.conversion.formats import open_source

    source = open_source(path)
    if args.inspect:
        print("\n".join(_description(args, path, source)))
        return 0
    target = storage_path(args.target, "TARGET")
    if source is not None:
        _to_run(args, source, target)
    else:
        _to_hugging_face(args, path, target)
    print(f"wrote {args.target}")
    return 0


def _description(args: argparse.Namespace, path: epath.Path, source: Any) -> list[str]:
    from switch_jax.conversion import inspect

    if source is not None:
        return inspect.other_checkpoint(source).lines()
    config, checkpoint = _open_run(args, path)
    return inspect.run_checkpoint(checkpoint, config).lines()


def _to_run(args: argparse.Namespace, source: Any, target: epath.Path) -> None:
    """Writes a run.

    Args:
      args: the flags.
      source: a `conversion.source.Source`.
      target: the run's folder.
    """
    from switch_jax.conversion.gin_of_source import gin_of_source
    from switch_jax.conversion.hugging_face.tokenizer import sentencepiece_file, vocabulary_identity
    from switch_jax.conversion.to_run import write_run

    architecture = source.architecture
    file = sentencepiece_file(source.folder, architecture["num_embeddings"])
    name = str(RunFolder(target).vocabulary) if file else source.vocabulary
    files, bindings = gin_of_source(source, target, name)
    args.gin_file = args.gin_file or files
    args.gin_bindings = [*bindings, *args.gin_bindings]
    found = gin_flags.read(args)
    config, text = found.config, found.text
    source.check_model(config.model)
    identities = {}
    if config.data.vocabulary != name:  # --gin.VOCABULARY
        file = None
    elif file:
        identities = dict.fromkeys(("inputs", "targets"), vocabulary_identity(file))
    else:
        print(
            f"{source.folder} has no spiece.model, so VOCABULARY is {config.data.vocabulary!r}: "
            "check that the model was trained with it"
        )
    write_run(target, source.parameters, config, text, source.path, file, identities, progress_bar)


def _to_hugging_face(args: argparse.Namespace, source: epath.Path, target: epath.Path) -> None:
    from switch_jax.conversion.hugging_face.export import write_folder
    from switch_jax.conversion.hugging_face.model_config import config_json
    from switch_jax.conversion.hugging_face.tokenizer import tokenizer_files
    from switch_jax.data.checks import check_vocabularies_of_run

    config, checkpoint = _open_run(args, source)
    described = config_json(config, args.model_type)
    check_vocabularies_of_run(source, config.data)
    tokenizer = tokenizer_files(config.data)
    write_folder(target, checkpoint, config.model, described, tokenizer, progress_bar)


def _open_run(args: argparse.Namespace, source: epath.Path) -> tuple[Any, epath.Path]:
    """The config of a run, and the checkpoint that --checkpoint names."""
    from switch_jax.checkpointing import find_checkpoint
    from switch_jax.checkpointing.read_only import ARRAYS

    config_gin, of_checkpoint = (RunFolder(x).config for x in (source, source.parent.parent))
    if is_folder(source / ARRAYS) and is_file(of_checkpoint):
        written = f"{of_checkpoint.parent} --checkpoint={source.name}"
        raise UserError(f"{args.source} is a checkpoint of a run: write {written}")
    if not is_file(config_gin):
        raise UserError(
            f"{args.source} holds no model: a Hugging Face folder has a config.json, a T5X "
            "checkpoint a file named checkpoint, and a MODEL_DIR a config.gin"
        )
    args.gin_file = args.gin_file or [str(config_gin)]
    found = gin_flags.read(args, unneeded=["MODEL_DIR"])
    own = config_of_run(RunFolder(source))
    if others := found.config.changes_since(own) if own else []:
        print(f"with other values than the run's: {', '.join(others)}", file=sys.stderr)
    step = inference_flags.checkpoint_step(source, args.checkpoint)
    return found.config, find_checkpoint(source, step)


@contextmanager
def progress_bar(size: int) -> Iterator[Callable[[int], object]]:
    """A bar of the bytes that are written, on a terminal."""
    from tqdm import tqdm

    with tqdm(total=size, unit="B", unit_scale=True, disable=None) as bar:
        yield bar.update
