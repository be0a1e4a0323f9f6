"""What `eval` and `infer` share: their flags, the run's model, the checkpoints to use."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from etils import epath

from switch_jax.cli import data_flags, gin_flags, multihost
from switch_jax.config import Config
from switch_jax.errors import FieldError, UserError
from switch_jax.run_folder import RunFolder
from switch_jax.storage import is_file, storage_path

if TYPE_CHECKING:  # they load JAX and TensorFlow
    from switch_jax.inference import DecodingConfig
    from switch_jax.inference.trained_model import TrainedModel


def add_inference_flags(parser: argparse.ArgumentParser) -> None:
    """The run's folder, how to decode, gin, folders of data, and how processes find each other."""
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="folder of a run")
    parser.add_argument(
        "--batch_size", type=int, metavar="N", help="examples of a batch; default: the run's"
    )
    decoding = parser.add_argument_group("decoding (greedy by default)")
    decoding.add_argument(
        "--max_tokens", type=int, metavar="N", help="most tokens to decode; default: the run's"
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
    multihost.add_process_flags(parser)


def add_checkpoint_flag(
    parser: argparse.ArgumentParser, choices: str = "latest, best or a step"
) -> None:
    """--checkpoint, which names one of a run, or all."""
    help = f"{choices}; default: %(default)s"
    parser.add_argument("--checkpoint", default="latest", metavar="WHICH", help=help)


def open_trained_model(args: argparse.Namespace) -> TrainedModel:
    """The model of the run at MODEL_DIR, configured by its config.gin, or by --gin_file if given.

    Its data config has the split of --split, and with --task that task.

    Raises:
      UserError: there is no such run, or a flag does not fit it.
    """
    for name in ("task", "split", "input", "output"):
        if getattr(args, name, None) == "":
            raise UserError(f"--{name} is empty: write a value, or leave it out")
    run = read_run(args)
    config = run.config.replace("data", split=args.split)
    if args.task is not None:
        config = config.replace("data", mixture_or_task_name=args.task)
    data_flags.apply(args)
    multihost.connect(args, config.mesh, run.text)
    multihost.enable_compilation_cache()

    from switch_jax.data.checks import check_vocabularies_of_run
    from switch_jax.inference.trained_model import prepare_model

    trained = prepare_model(run.model_dir, config, decoding_config(args, config))
    check_vocabularies_of_run(run.model_dir, config.data)
    return trained


class Run(NamedTuple):
    """A run whose config.gin was read.

    Attributes:
      model_dir: its folder.
      config: with the changes of the flags.
      text: of the config, a gin file.
    """

    model_dir: epath.Path
    config: Config
    text: str


def read_run(args: argparse.Namespace) -> Run:
    """The run at MODEL_DIR; raises UserError if there is none, or a flag does not fit it."""
    model_dir = storage_path(args.model_dir, "MODEL_DIR")
    config_gin = RunFolder(model_dir).config
    if not args.gin_file:
        if not is_file(config_gin):
            raise UserError(
                f"{args.model_dir} is not the folder of a run: it has no config.gin; give a "
                "MODEL_DIR, or the config with --gin_file"
            )
        args.gin_file = [str(config_gin)]
    found = gin_flags.read(args, unneeded=["MODEL_DIR"])
    config = found.config
    if args.batch_size is not None:
        with fields_named_as_flags():
            config = config.replace("run", batch_size=args.batch_size)
    return Run(model_dir, config, found.text)


def decoding_config(args: argparse.Namespace, config: Config) -> DecodingConfig:
    """How the flags say to decode; raises UserError if one is out of range."""
    from switch_jax.inference import trained_model

    options = ("max_tokens", "num_beams", "length_penalty", "temperature", "top_k", "top_p", "seed")
    given = {name: getattr(args, name) for name in options}
    with fields_named_as_flags():
        return trained_model.decoding_config(config.data, **given)


def checkpoint_step(model_dir: epath.Path, choice: str) -> int:
    """The step of the checkpoint that --checkpoint selects: 'latest', 'best' or a step.

    Raises:
      UserError: there is no such checkpoint.
    """
    from switch_jax.checkpointing import chosen_step

    with fields_named_as_flags():
        return chosen_step(model_dir, choice)


@contextlib.contextmanager
def fields_named_as_flags() -> Iterator[None]:
    """Within, the error of a field names the flag, which is called like it."""
    try:
        yield
    except FieldError as error:
        raise UserError(f"--{error}".removesuffix(", or None")) from None
