"""A run's model for a command that asks it something: flags, config, parameters."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from switch_jax.cli import data_flags, gin_flags, multihost
from switch_jax.config import Config, DataConfig
from switch_jax.errors import FieldError, UserError
from switch_jax.paths import is_file, local_path
from switch_jax.run_folder import RunFolder, read_run_json

if TYPE_CHECKING:  # they load JAX, and TensorFlow
    from switch_jax.inference import DecodingConfig
    from switch_jax.inference.trained_model import TrainedModel


def add_trained_flags(parser: argparse.ArgumentParser) -> None:
    """The run's folder, how to decode, gin flags, and how processes find each other."""
    parser.add_argument("model_dir", metavar="MODEL_DIR", help="folder of a run")
    parser.add_argument(
        "--batch_size", type=int, metavar="N", help="examples at a time; default: the run's"
    )
    decoding = parser.add_argument_group("decoding: greedy, if none of these is given")
    decoding.add_argument(
        "--max_tokens", type=int, metavar="N", help="most that are decoded; default: the run's"
    )
    decoding.add_argument("--num_beams", type=int, default=1, metavar="N", help="beam search")
    decoding.add_argument(
        "--length_penalty",
        type=float,
        default=0.6,
        metavar="ALPHA",
        help="of the beam search: scores are divided by ((5 + tokens) / 6)^ALPHA; "
        "default: %(default)s",
    )
    decoding.add_argument(
        "--temperature", type=float, default=0.0, metavar="T", help="above 0, tokens are drawn"
    )
    decoding.add_argument("--top_k", type=int, metavar="K", help="draw among the K most probable")
    decoding.add_argument(
        "--top_p",
        type=float,
        metavar="P",
        help="draw among the most probable that together have probability P",
    )
    decoding.add_argument("--seed", type=int, default=0, help="of what is drawn")
    gin_flags.add_gin_flags(parser)
    data_flags.add_data_flags(parser)
    multihost.add_process_flags(parser)


def open_trained(args: argparse.Namespace) -> TrainedModel:
    """The run that the flags name, configured by its config.gin, or by --gin_file where given.

    Its data have the split of --split, and with --task are those of that task.

    Raises:
      UserError: no such run, or values that do not fit it.
    """
    for name in ("task", "split", "input", "output"):
        if getattr(args, name, None) == "":
            raise UserError(f"--{name} is empty: write a value, or leave it out")
    folder = local_path(args.model_dir, "MODEL_DIR")
    config_gin = RunFolder(folder).config
    if not args.gin_file:
        if not is_file(config_gin):
            raise UserError(
                f"{args.model_dir} is no folder of a run: it has no config.gin; give a MODEL_DIR, "
                "or the config with --gin_file"
            )
    trained_with = _trained_with(args, folder)
    args.gin_file = args.gin_file or [str(config_gin)]
    config = _configured(args)
    data_flags.apply(args)
    multihost.connect(args, config.mesh)
    multihost.keep_compiled()

    from switch_jax.data.checks import check_vocabulary
    from switch_jax.inference.trained_model import TrainedModel
    from switch_jax.partitioning.mesh import make_mesh
    from switch_jax.train_step.microbatches import check_batch
    from switch_jax.train_step.state import abstract_state

    check_vocabulary(config.data, config.model.num_embeddings)
    _check_own_vocabulary(folder, trained_with, config.data)
    decoding = _decoding(args, config)
    mesh = make_mesh(config.mesh)
    check_batch(config, mesh.shape)
    parameters = abstract_state(config, mesh).parameters
    return TrainedModel(folder, config, mesh, parameters, decoding)


def _configured(args: argparse.Namespace) -> Config:
    """The config with what the flags change; nothing is trained, so there are no microbatches."""
    config = gin_flags.build(args, unneeded=["MODEL_DIR"])
    config = config.replace("data", split=args.split).replace("run", num_microbatches=1)
    if args.task is not None:
        config = config.replace("data", mixture_or_task_name=args.task)
    if args.batch_size is not None:
        try:
            config = config.replace("run", batch_size=args.batch_size)
        except FieldError as error:
            raise UserError(f"--{error}") from None
    return config


def _decoding(args: argparse.Namespace, config: Config) -> DecodingConfig:
    """How the flags say that sequences are decoded."""
    from switch_jax.data.configured_tasks import vocabularies
    from switch_jax.inference import DecodingConfig

    try:
        return DecodingConfig(
            max_tokens=config.data.lengths[1] if args.max_tokens is None else args.max_tokens,
            num_beams=args.num_beams,
            length_penalty=args.length_penalty,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            seed=args.seed,
            eos_id=vocabularies(config.data)["targets"].eos_id,
        )
    except FieldError as error:  # its fields have the names of the flags
        raise UserError(f"--{error}") from None


def check_memory(trained: TrainedModel, *, decodes: bool, scores: bool) -> None:
    """Raises UserError where a batch has no room; all processes must call it together."""
    from switch_jax.inference.decoding_memory import check_decoding, check_scoring
    from switch_jax.metrics.memory import memory_of

    model, rows = trained.config.model, trained.config.run.batch_size
    inputs, targets = trained.config.data.lengths
    most = memory_of(trained.mesh)
    if decodes:
        check_decoding(model, trained.decoding, rows, inputs, most)
    if scores:
        check_scoring(model, rows, targets, most)


def _trained_with(args: argparse.Namespace, folder: Path) -> dict[str, str]:
    """What tells the run's vocabularies from others, by feature; empty where nothing says it.

    `run.json` says it. For a run of a version that did not write it there, its config.gin does,
    which is not read where another config is given.
    """
    from switch_jax.data.configured_tasks import identities

    known = read_run_json(RunFolder(folder)).value.get("vocabulary")
    if known or args.gin_file:
        return known or {}
    as_it_was = {**vars(args), "gin_file": [str(RunFolder(folder).config)], "gin_bindings": []}
    try:
        config = gin_flags.build(argparse.Namespace(**as_it_was), unneeded=["MODEL_DIR"])
        return identities(config.data)
    except UserError:  # it needs values of the command line, or the vocabulary's file is gone
        return {}


def _check_own_vocabulary(folder: Path, trained_with: dict[str, str], data: DataConfig) -> None:
    """Raises UserError where the data are written in another vocabulary than the run's."""
    from switch_jax.data.configured_tasks import identities

    for name, found in identities(data).items():
        known = trained_with.get(name, found)
        if found != known:
            raise UserError(
                f"the {name} of {data.mixture_or_task_name} are written in another vocabulary "
                f"({found}) than {folder} was trained with ({known}), so its ids would stand for "
                "other words; take a task of that vocabulary, or set VOCABULARY to it"
            )


def chosen_steps(folder: Path, choice: str) -> list[int]:
    """The steps of the checkpoints that 'latest', 'best', 'all' or a number names.

    Raises:
      UserError: there is no such checkpoint.
    """
    from switch_jax.checkpointing import best_step, find_checkpoint
    from switch_jax.runtime.processes import gather

    if choice == "best":
        return [best_step(folder)]
    if choice in ("latest", "all"):
        find_checkpoint(folder)  # there is one
        steps = gather(RunFolder(folder).checkpoint_steps())[0]
        return steps if choice == "all" else steps[-1:]
    if not choice.isdecimal() or len(choice) > 15:
        raise UserError(f"--checkpoint {choice}: write latest, best, all, or the number of a step")
    find_checkpoint(folder, int(choice))
    return [int(choice)]
