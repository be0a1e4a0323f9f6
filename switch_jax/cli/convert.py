"""Convert a checkpoint of Hugging Face or T5X into ours, or ours into a Hugging Face folder.

    switch_jax convert switch-base-8 runs/switch_base_8      # Hugging Face's folder -> a MODEL_DIR
    switch_jax convert checkpoint_500100 runs/from_t5x       # T5X's folder -> a MODEL_DIR
    switch_jax convert runs/tuned tuned_hugging_face         # the newest checkpoint -> a folder
    switch_jax convert --inspect switch-base-8               # what is in there

The models are Switch Transformers, T5 (1.0 and 1.1) and mT5, and of language models Qwen3-MoE and
Qwen3. Every tensor is accounted for: one that is missing, left over or of another shape is named,
and nothing is written. The target is a new folder, and complete once it is there.
docs/checkpoint_formats.md says what differs between the formats.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from etils import epath

from switch_jax.cli import gin_flags, inference_flags
from switch_jax.run_folder import RunFolder, read_run_config
from switch_jax.storage import storage_path
from switch_jax.utils.errors import UserError

if TYPE_CHECKING:  # it loads JAX and TensorFlow
    from switch_jax.conversion.source import Source
    from switch_jax.inference.trained_model import ModelFolder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SOURCE", help="a Hugging Face folder, a T5X checkpoint, or a MODEL_DIR")
    add("target", metavar="TARGET", nargs="?", help="the folder to write")
    add(
        "--inspect",
        action="store_true",
        help="describe SOURCE by its headers, name its parameters, and write nothing",
    )
    inference_flags.add_checkpoint_flag(parser, "of a MODEL_DIR: latest, best or a step")
    add(
        "--model_type",
        choices=["switch_transformers", "t5", "mt5", "qwen3_moe", "qwen3"],
        help="of the Hugging Face folder to write; default: the first one that fits the model",
    )
    gin_flags.add_gin_flags(parser)


def main(args: argparse.Namespace) -> int:
    if args.inspect == bool(args.target):
        raise UserError("write --inspect SOURCE to describe it, or SOURCE TARGET to convert it")
    if args.inspect:
        print("\n".join(_description(args)))
        return 0
    target = storage_path(args.target, "TARGET")
    folder = inference_flags.read_folder(args, args.source, target)
    if folder.source is not None:
        _to_run(folder, target)
    else:
        _to_hugging_face(args, folder, target)
    print(f"wrote {args.target}")
    return 0


def _description(args: argparse.Namespace) -> list[str]:
    from switch_jax.conversion import inspect
    from switch_jax.conversion.formats import open_source

    source = open_source(storage_path(args.source, "SOURCE"))
    if source is not None:
        return inspect.describe_source(source)
    folder = inference_flags.read_folder(args, args.source)
    return inspect.describe_run(_checkpoint(args, folder), folder.config)


def _to_run(folder: ModelFolder, target: epath.Path) -> None:
    from switch_jax.conversion.hugging_face.tokenizer import sentencepiece_file
    from switch_jax.conversion.to_run import write_run
    from switch_jax.data.catalogue.vocabularies import fingerprint, get_vocabulary

    source, config, text = folder.source, folder.config, folder.config_text
    assert source is not None
    source.check_model(config.model)
    file = sentencepiece_file(source.folder, config.model.num_embeddings)
    if config.data.vocabulary != str(RunFolder(target).vocabulary):  # --gin.VOCABULARY
        file = None
    fingerprints = {}
    if file is not None:
        fingerprints = dict.fromkeys(("inputs", "targets"), fingerprint(get_vocabulary(str(file))))
    if folder.note:
        print(folder.note)
    write_run(
        target, source.parameters, config, text, source.path, file, fingerprints, progress_bar
    )
    print(_dtype(source, config.model.activation_dtype))


def _dtype(source: Source, dtype: str) -> str:
    """Says in which dtype the new run computes, and its source does, since scores depend on it."""
    theirs = source.architecture.get("activation_dtype")
    reason = f"; in {source.path} it is {theirs!r}"
    if theirs in (None, dtype):
        none = f"; {source.path} does not say in which dtype it computes"
        reason = f", as in {source.path}" if theirs else none
    return f"ACTIVATION_DTYPE is {dtype!r}{reason}"


def _to_hugging_face(args: argparse.Namespace, folder: ModelFolder, target: epath.Path) -> None:
    from switch_jax.conversion.hugging_face.export import write_folder
    from switch_jax.conversion.hugging_face.model_config import config_json
    from switch_jax.conversion.hugging_face.tokenizer import tokenizer_files
    from switch_jax.data.catalogue.checks import check_vocabularies_of_run

    config, checkpoint = folder.config, _checkpoint(args, folder)
    described = config_json(config, int(checkpoint.name), args.model_type)
    check_vocabularies_of_run(folder.path, config.data)
    tokenizer = tokenizer_files(config.data, config.model.stacks[0])
    write_folder(target, checkpoint, config.model, described, tokenizer, progress_bar)


def _checkpoint(args: argparse.Namespace, folder: ModelFolder) -> epath.Path:
    """The checkpoint of a run that --checkpoint names; says where the flags change its config."""
    from switch_jax.checkpointing import chosen_step, find_checkpoint

    trained = read_run_config(RunFolder(folder.path))
    if changes := folder.config.changes_since(trained) if trained else []:
        print(f"with other values than the run's: {', '.join(changes)}", file=sys.stderr)
    with inference_flags.fields_named_as_flags():
        step = chosen_step(folder.path, args.checkpoint)
    return find_checkpoint(folder.path, step)


@contextmanager
def progress_bar(size: int) -> Iterator[Callable[[int], object]]:
    """A bar of the bytes that are written, on a terminal."""
    from tqdm import tqdm

    with tqdm(total=size, unit="B", unit_scale=True, disable=None) as bar:
        yield bar.update
