"""The flags that `eval` and `infer` share, and the model that they name."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from etils import epath

from switch_jax.cli import data_flags, gin_flags, processes
from switch_jax.config import Config
from switch_jax.utils.errors import FieldError, UserError

if TYPE_CHECKING:  # they load JAX and TensorFlow
    from switch_jax.inference import DecodingConfig
    from switch_jax.inference.trained_model import ModelFolder, TrainedModel


def add_inference_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the run's folder, and the flags of decoding, gin, data folders and processes."""
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="folder of a model")
    parser.add_argument(
        "--batch_size", type=int, metavar="N", help="examples of a batch; default: the run's"
    )
    decoding = parser.add_argument_group("decoding (greedy by default)")
    decoding.add_argument(
        "--max_new_tokens",
        type=int,
        metavar="N",
        help="most tokens to decode; default: the run's length of targets, or half of it where "
        "prompts share it",
    )
    decoding.add_argument("--num_beams", type=int, default=1, metavar="N", help="beam search")
    decoding.add_argument(
        "--length_penalty",
        type=float,
        default=0.6,
        metavar="ALPHA",
        help="of beam search: scores are divided by ((5 + tokens) / 6)^ALPHA; default: %(default)s",
    )
    decoding.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="above 0: sample tokens"
    )
    decoding.add_argument(
        "--top_k", type=int, metavar="K", help="sample among the K most probable tokens"
    )
    decoding.add_argument(
        "--top_p",
        type=float,
        metavar="P",
        help="sample among the most probable tokens that together have probability P",
    )
    decoding.add_argument("--seed", type=int, default=0, help="of sampling")
    gin_flags.add_gin_flags(parser)
    data_flags.add_data_flags(parser)
    processes.add_process_flags(parser)


def add_checkpoint_flag(
    parser: argparse.ArgumentParser, choices: str = "latest, best or a step"
) -> None:
    """Adds --checkpoint, which names one checkpoint of a run, or all."""
    help = f"{choices}; default: %(default)s"
    parser.add_argument("--checkpoint", default="latest", metavar="WHICH", help=help)


def read_folder(
    args: argparse.Namespace, path: str, target: epath.Path | None = None
) -> ModelFolder:
    """Opens the folder of a model, whose config the gin flags change; see `open_folder`."""
    from switch_jax.inference.trained_model import open_folder

    paths = gin_flags.search_paths(args)
    return open_folder(path, args.gin_file, args.gin_bindings, paths, keep=True, target=target)


def open_model(args: argparse.Namespace) -> TrainedModel:
    """The model that the flags name; joins the other processes. UserError where there is none."""
    folder = read_folder(args, args.model_dir)
    data_flags.apply(args)
    processes.connect(args, folder.config.mesh, folder.config_text)
    processes.enable_compilation_cache()

    from switch_jax.inference.trained_model import prepare_model

    if folder.note:
        print(folder.note, file=sys.stderr)
    with fields_named_as_flags():
        return prepare_model(folder, task=args.task, split=args.split, batch_size=args.batch_size)


def decoding_config(args: argparse.Namespace, config: Config) -> DecodingConfig:
    """Makes the config of decoding from the flags; UserError where one is out of range."""
    from switch_jax.inference import decoding, trained_model

    given = {name: getattr(args, name) for name in decoding.OPTIONS}
    with fields_named_as_flags():
        return trained_model.decoding_config(config.data, **given)


@contextlib.contextmanager
def fields_named_as_flags() -> Iterator[None]:
    """Turns errors of fields into UserErrors that name the flag, which is called like the field."""
    try:
        yield
    except FieldError as error:
        raise UserError(f"--{error}".removesuffix(", or None")) from None
