"""A run's model for a command that asks it something: flags, config, parameters."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

from switch_jax.cli import data_flags, gin_flags, multihost
from switch_jax.errors import FieldError, UserError
from switch_jax.paths import is_file, local_path


class Trained(NamedTuple):
    """A run as it was configured, with what the flags change.

    Attributes:
      folder: MODEL_DIR.
      run, model, data: the config.
      mesh: the devices.
      parameters: `ShapeDtypeStruct`s on the mesh, as `checkpointing.load_parameters` takes them.
      decoding: how sequences are decoded.
      places: where its data lie, see `data_flags.places`.
    """

    folder: Path
    run: Any
    model: Any
    data: Any
    mesh: Any
    parameters: Any
    decoding: Any
    places: dict[str, Any]

    def settings(self, step: int) -> dict[str, Any]:
        """What results depend on besides the question and the decoding, as JSON.

        Another checkpoint of the same step, saved after the run went back, is another one.
        """
        from switch_jax.checkpointing import commit_time, find_checkpoint
        from switch_jax.data.configured_tasks import identities

        return {
            "step": step,
            "saved": commit_time(find_checkpoint(self.folder, step)),
            "model": dataclasses.asdict(self.model),
            "lengths": dict(self.data.task_feature_lengths),
            "vocabulary": identities(self.data),
            "use_cached": self.data.use_cached,
            "batch_size": self.run.batch_size,
        }


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


def open_trained(args: argparse.Namespace) -> Trained:
    """The run that the flags name, configured by its config.gin, or by --gin_file where given.

    Its data have the split of --split, and with --task are those of that task.

    Raises:
      UserError: no such run, or values that do not fit it.
    """
    for name in ("task", "split", "input", "output"):
        if getattr(args, name, None) == "":
            raise UserError(f"--{name} is empty: write a value, or leave it out")
    folder = local_path(args.model_dir, "MODEL_DIR")
    config = folder / "config.gin"
    if not args.gin_file:
        if not is_file(config):
            raise UserError(
                f"{args.model_dir} is no folder of a run: it has no config.gin; give a MODEL_DIR, "
                "or the config with --gin_file"
            )
    trained_with = _trained_with(args, folder)
    args.gin_file = args.gin_file or [str(config)]
    parts = gin_flags.build(args, unneeded=["MODEL_DIR"])
    data_flags.apply(args)
    multihost.connect(args, parts["mesh"])
    multihost.keep_compiled()

    from switch_jax.data.checks import check_vocabulary
    from switch_jax.data.configured_tasks import vocabularies
    from switch_jax.inference import DecodingConfig
    from switch_jax.partitioning.mesh import make_mesh
    from switch_jax.train_step.state import abstract_state
    from switch_jax.train_step.step import check_batch

    model, data = parts["model"], dataclasses.replace(parts["data"], split=args.split)
    if args.task is not None:
        data = dataclasses.replace(data, mixture_or_task_name=args.task)
    check_vocabulary(data, model.vocab_size)
    _check_own_vocabulary(folder, trained_with, data)
    mesh = make_mesh(parts["mesh"])
    state = abstract_state(
        model,
        parts["optimizer"],
        mesh,
        fully_sharded=parts["mesh"].fully_sharded_weights,
    )
    run, lengths = parts["run"], data.task_feature_lengths
    try:
        if args.batch_size is not None:
            run = dataclasses.replace(run, batch_size=args.batch_size)
        decoding = DecodingConfig(
            max_tokens=lengths["targets"] if args.max_tokens is None else args.max_tokens,
            num_beams=args.num_beams,
            length_penalty=args.length_penalty,
            temperature=args.temperature,
            top_k=args.top_k,
            top_p=args.top_p,
            seed=args.seed,
            eos_id=vocabularies(data)["targets"].eos_id,
        )
    except FieldError as error:  # its fields have the names of the flags
        raise UserError(f"--{error}") from None
    check_batch(model, run.batch_size, (lengths["inputs"], lengths["targets"]), 1, mesh.shape)
    return Trained(
        folder,
        run,
        model,
        data,
        mesh,
        state.parameters,
        decoding,
        data_flags.places(args),
    )


def check_memory(model: Trained, *, decodes: bool, scores: bool) -> None:
    """Raises UserError where a batch has no room; all processes must call it together."""
    from switch_jax.inference.decoding_memory import check_decoding, check_scoring
    from switch_jax.metrics.memory import memory_of

    lengths, rows = model.data.task_feature_lengths, model.run.batch_size
    most = memory_of(model.mesh)
    if decodes:
        check_decoding(model.model, model.decoding, rows, lengths["inputs"], most)
    if scores:
        check_scoring(model.model, rows, lengths["targets"], most)


def _trained_with(args: argparse.Namespace, folder: Path) -> dict[str, str]:
    """What tells the run's vocabularies from others, by feature; empty where nothing says it.

    `run.json` says it. For a run of a version that did not write it there, its config.gin does,
    which is not read where another config is given.
    """
    from etils import epath

    from switch_jax.data.configured_tasks import identities
    from switch_jax.run_folder import read_facts

    known = read_facts(epath.Path(folder)).value.get("vocabulary")
    config = folder / "config.gin"
    if known or args.gin_file:
        return known or {}
    as_it_was = {**vars(args), "gin_file": [str(config)], "gin_bindings": []}
    try:
        parts = gin_flags.build(argparse.Namespace(**as_it_was), unneeded=["MODEL_DIR"])
        return identities(parts["data"])
    except UserError:  # it needs values of the command line, or the vocabulary's file is gone
        return {}


def _check_own_vocabulary(folder: Path, trained_with: dict[str, str], data: Any) -> None:
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
    from switch_jax.checkpointing import best_step, find_checkpoint, saved_steps
    from switch_jax.runtime.processes import gather

    if choice == "best":
        return [best_step(folder)]
    if choice in ("latest", "all"):
        find_checkpoint(folder)  # there is one
        steps = gather(saved_steps(folder))[0]
        return steps if choice == "all" else steps[-1:]
    if not choice.isdecimal() or len(choice) > 15:
        raise UserError(f"--checkpoint {choice}: write latest, best, all, or the number of a step")
    find_checkpoint(folder, int(choice))
    return [int(choice)]
