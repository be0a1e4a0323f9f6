"""What `eval` and `infer` share: their flags, the run's model, the checkpoints to use."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from switch_jax.cli import data_flags, gin_flags, multihost
from switch_jax.config import Config, DataConfig
from switch_jax.errors import FieldError, UserError
from switch_jax.paths import is_file, local_path
from switch_jax.run_folder import RunFolder, read_run_json

if TYPE_CHECKING:  # they load JAX and TensorFlow
    from switch_jax.inference import DecodingConfig
    from switch_jax.inference.trained_model import TrainedModel


def add_inference_flags(parser: argparse.ArgumentParser) -> None:
    """The run's folder, how to decode, gin flags, and how processes find each other."""
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


def open_trained_model(args: argparse.Namespace) -> TrainedModel:
    """The model of the run at MODEL_DIR, configured by its config.gin, or by --gin_file if given.

    Its data config has the split of --split, and with --task that task.

    Raises:
      UserError: there is no such run, or a flag does not fit it.
    """
    for name in ("task", "split", "input", "output"):
        if getattr(args, name, None) == "":
            raise UserError(f"--{name} is empty: write a value, or leave it out")
    model_dir = local_path(args.model_dir, "MODEL_DIR")
    config_gin = RunFolder(model_dir).config
    if not args.gin_file:
        if not is_file(config_gin):
            raise UserError(
                f"{args.model_dir} is not the folder of a run: it has no config.gin; give a "
                "MODEL_DIR, or the config with --gin_file"
            )
    recorded = run_vocabularies(args, model_dir)
    args.gin_file = args.gin_file or [str(config_gin)]
    config = _build_config(args)
    data_flags.apply(args)
    multihost.connect(args, config.mesh)
    multihost.enable_compilation_cache()

    from switch_jax.data.checks import check_vocabulary
    from switch_jax.inference.trained_model import TrainedModel
    from switch_jax.partitioning.mesh import make_mesh
    from switch_jax.train_step.microbatches import check_batch
    from switch_jax.train_step.state import abstract_state

    check_vocabulary(config.data, config.model.num_embeddings)
    check_same_vocabularies(model_dir, recorded, config.data)
    decoding = _decoding_config(args, config)
    mesh = make_mesh(config.mesh)
    check_batch(config, mesh.shape)
    parameters = abstract_state(config, mesh).parameters
    return TrainedModel(model_dir, config, mesh, parameters, decoding)


def _build_config(args: argparse.Namespace) -> Config:
    """The run's config with the changes of the flags, and without microbatches."""
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


def _decoding_config(args: argparse.Namespace, config: Config) -> DecodingConfig:
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
    except FieldError as error:  # the fields are named like the flags
        raise UserError(f"--{error}") from None


def check_memory(trained: TrainedModel, *, decodes: bool, scores: bool) -> None:
    """Raises UserError if a batch does not fit in memory; all processes must call it together.

    Args:
      trained: the model.
      decodes, scores: what the command will do.
    """
    from switch_jax.inference.decoding_memory import check_decoding, check_scoring
    from switch_jax.metrics.memory import memory_of

    model, batch_size = trained.config.model, trained.config.run.batch_size
    input_length, target_length = trained.config.data.lengths
    memory = memory_of(trained.mesh)
    if decodes:
        check_decoding(model, trained.decoding, batch_size, input_length, memory)
    if scores:
        check_scoring(model, batch_size, target_length, memory)


def run_vocabularies(args: argparse.Namespace, model_dir: Path) -> dict[str, str]:
    """The identity of the vocabulary of each feature that the run was trained with.

    It is recorded in `run.json`. Older versions did not record it: for their runs it is taken from
    config.gin, unless another config is given. It is empty if it cannot be found out.
    """
    from switch_jax.data.configured_tasks import identities

    recorded = read_run_json(RunFolder(model_dir)).value.get("vocabulary")
    if recorded or args.gin_file:
        return recorded or {}
    run_args = {**vars(args), "gin_file": [str(RunFolder(model_dir).config)], "gin_bindings": []}
    try:
        config = gin_flags.build(argparse.Namespace(**run_args), unneeded=["MODEL_DIR"])
        return identities(config.data)
    except UserError:  # it needs values of the command line, or the vocabulary's file is missing
        return {}


def check_same_vocabularies(
    model_dir: Path, run_vocabularies: dict[str, str], data: DataConfig
) -> None:
    """Raises UserError if the data use another vocabulary than the run was trained with."""
    from switch_jax.data.configured_tasks import identities

    for name, vocabulary in identities(data).items():
        expected = run_vocabularies.get(name, vocabulary)
        if vocabulary != expected:
            raise UserError(
                f"the {name} of {data.mixture_or_task_name} have another vocabulary "
                f"({vocabulary}) than {model_dir} was trained with ({expected}), so their ids "
                "would stand for other words; take a task with that vocabulary, or set VOCABULARY "
                "to it"
            )


def checkpoint_steps(model_dir: Path, choice: str) -> list[int]:
    """The steps of the checkpoints that --checkpoint selects: 'latest', 'best', 'all' or a step.

    Raises:
      UserError: there is no such checkpoint.
    """
    from switch_jax.checkpointing import best_step, find_checkpoint
    from switch_jax.runtime.processes import gather

    if choice == "best":
        return [best_step(model_dir)]
    if choice in ("latest", "all"):
        find_checkpoint(model_dir)  # raises UserError if there is none
        steps = gather(RunFolder(model_dir).checkpoint_steps())[0]
        return steps if choice == "all" else steps[-1:]
    if not choice.isdecimal() or len(choice) > 15:
        raise UserError(f"--checkpoint {choice}: write latest, best, all, or the number of a step")
    find_checkpoint(model_dir, int(choice))
    return [int(choice)]
