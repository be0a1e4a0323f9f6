"""A run's model for a command that asks it something: flags, config, parameters."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from switch_jax.cli import data_flags, gin_flags, processes
from switch_jax.errors import UserError


class Trained(NamedTuple):
    """A run as it was configured, with what the flags change.

    Attributes:
      folder: MODEL_DIR.
      run, model, data: the config.
      mesh: the devices.
      parameters: `ShapeDtypeStruct`s on the mesh, as `checkpointing.load_parameters` takes them.
      decoding: how sequences are decoded.
    """

    folder: Path
    run: Any
    model: Any
    data: Any
    mesh: Any
    parameters: Any
    decoding: Any


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
    processes.add_process_flags(parser)


def open_trained(args: argparse.Namespace) -> Trained:
    """The run that the flags name, configured by its config.gin, or by --gin_file where given.

    Raises:
      UserError: no such run, or values that do not fit it.
    """
    folder = Path(args.model_dir).expanduser()
    config = folder / "config.gin"
    if not args.gin_file:
        if not config.is_file():
            raise UserError(
                f"{args.model_dir} is no folder of a run: it has no config.gin; give a MODEL_DIR, "
                "or the config with --gin_file"
            )
        args.gin_file = [str(config)]
    parts = gin_flags.build(args, unneeded=["MODEL_DIR"])
    data_flags.apply(args)
    processes.connect(args, parts["mesh"])
    processes.keep_compiled()

    from switch_jax.inference import DecodingConfig
    from switch_jax.partitioning.mesh import make_mesh
    from switch_jax.training.state import abstract_state
    from switch_jax.training.step import check_batch

    mesh = make_mesh(parts["mesh"])
    state = abstract_state(
        parts["model"],
        parts["optimizer"],
        mesh,
        fully_sharded=parts["mesh"].fully_sharded_weights,
    )
    run = dataclasses.replace(parts["run"], batch_size=args.batch_size or parts["run"].batch_size)
    lengths = parts["data"].task_feature_lengths
    check_batch(
        parts["model"], run.batch_size, (lengths["inputs"], lengths["targets"]), 1, mesh.shape
    )
    return Trained(
        folder,
        run,
        parts["model"],
        parts["data"],
        mesh,
        state.parameters,
        DecodingConfig(
            max_tokens=args.max_tokens or parts["data"].task_feature_lengths["targets"],
            num_beams=args.num_beams,
            length_penalty=args.length_penalty,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            seed=args.seed,
        ),
    )


def chosen_steps(folder: Path, choice: str) -> list[int]:
    """The steps of the checkpoints that 'latest', 'best', 'all' or a number names.

    Raises:
      UserError: there is no such checkpoint.
    """
    from switch_jax.checkpointing import best_step, find_checkpoint, saved_steps

    if choice == "best":
        return [best_step(folder)]
    if choice in ("latest", "all"):
        find_checkpoint(folder)  # there is one
        steps = saved_steps(folder)
        return steps if choice == "all" else steps[-1:]
    if not choice.isdecimal():
        raise UserError(f"--checkpoint {choice}: write latest, best, all, or the number of a step")
    find_checkpoint(folder, int(choice))
    return [int(choice)]
