"""Predict or score with a trained model.

    switch_jax infer runs/tuned --task=my_task --output=predictions.jsonl
    switch_jax infer runs/tuned --input=questions.txt --output=answers.jsonl --num_beams=4
    switch_jax infer runs/tuned --input=pairs.jsonl --output=scores.jsonl --score
    echo "trivia question: ..." | switch_jax infer runs/tuned --input=-

Input is JSON lines with "inputs" and, to score, "targets"; plain text, an input a line; a TFRecord
of examples with those features; or the examples of a task. Output is JSON lines in the order of the
input, a line for each: "inputs", "prediction" and "score", its log-probability; with --score
"inputs", "targets" and "score".

Results are written part by part to OUTPUT.parts, so that the same command goes on where it was
stopped; several jobs share the parts with --num_shards and --shard.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from switch_jax.cli import data_flags, trained
from switch_jax.errors import UserError

if TYPE_CHECKING:  # they load JAX, and TensorFlow
    from switch_jax.inference import infer
    from switch_jax.inference.trained_model import TrainedModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to read, what to write, which checkpoint, and how to decode."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", metavar="FILE", help=".jsonl, .tfrecord, text, or - for stdin")
    source.add_argument("--task", metavar="NAME", help="a registered task or mixture")
    parser.add_argument("--split", default="validation", help="of --task; default: %(default)s")
    parser.add_argument("--output", metavar="FILE", help="JSON lines; without it: standard output")
    parser.add_argument(
        "--score", action="store_true", help="score the given targets, and decode nothing"
    )
    parser.add_argument(
        "--checkpoint",
        default="latest",
        metavar="STEP",
        help="latest, best or a step; default: %(default)s",
    )
    parser.add_argument(
        "--part_size",
        type=int,
        default=1000,
        metavar="N",
        help="results written at a time, rounded up to whole batches, so that what is in a "
        "batch, and so which tokens an expert has no room for, depends on the input alone; "
        "default: %(default)s",
    )
    parser.add_argument("--num_shards", type=int, default=1, metavar="N", help="jobs in all")
    parser.add_argument("--shard", type=int, default=0, metavar="I", help="of this job, from 0")
    trained.add_trained_flags(parser)


def main(args: argparse.Namespace) -> int:
    """Reads, asks the model, writes."""
    for name, least, most in (
        ("num_shards", 1, 10**6),
        ("part_size", 1, 10**9),
        ("shard", 0, 10**6),
    ):
        value = getattr(args, name)
        if not least <= value <= most:
            raise UserError(f"--{name} {value}: write a number from {least} to {most}")
    if args.shard >= args.num_shards:
        raise UserError(f"--shard {args.shard}: write a number from 0 to {args.num_shards - 1}")
    if args.output == "-":
        args.output = None
    if args.input == "-" and (args.output or args.multihost or args.process_count):
        raise UserError(
            "--input=- answers on standard output, in one process: leave out --output and the "
            "flags of processes, or write the input to a file"
        )
    if args.num_shards > 1 and not args.output:
        raise UserError("--num_shards needs an --output, in which the jobs put their parts")

    model = trained.open_trained(args)
    if args.checkpoint == "all":
        raise UserError("--checkpoint all: one is needed here; write latest, best or a step")
    (step,) = trained.chosen_steps(model.folder, args.checkpoint)
    trained.check_memory(model, decodes=not args.score, scores=args.score)
    return _infer(args, model, step)


def _infer(args: argparse.Namespace, model: TrainedModel, step: int) -> int:
    import jax
    from tqdm import tqdm

    from switch_jax.checkpointing import load_parameters
    from switch_jax.data.checks import check_examples, open_tasks
    from switch_jax.data.configured_tasks import vocabularies
    from switch_jax.inference import infer
    from switch_jax.inference.resumable_output import Parts
    from switch_jax.inference.predictor import Predictor
    from switch_jax.runtime.processes import is_first

    data, batch = model.config.data, model.config.run.batch_size
    known = vocabularies(data)
    if args.task is not None:
        opened = open_tasks(data)
        check_examples(opened)
        items = infer.items_of_task(opened)
    else:
        items = infer.items_of_file(args.input, known, data.task_feature_lengths)
    if args.output:
        size = -(-args.part_size // batch) * batch
        parts = Parts(args.output, size, _description(args, model, step))
    with jax.set_mesh(model.mesh), tqdm(unit="example", disable=not is_first()) as progress:
        predictor = Predictor(model)
        parameters = load_parameters(model.folder, model.parameters, step)

        def compute(some: Sequence[infer.Item], first: int) -> Iterator[dict[str, Any]]:
            if args.score:
                results = infer.scores(predictor, parameters, some, first)
            else:
                vocabulary = known["targets"]
                results = infer.predictions(predictor, parameters, some, vocabulary, first)
            for result in results:
                progress.update()
                yield result

        if not args.output:
            _print(items, batch, compute, is_first())
            return 0
        missing = parts.fill(items, compute, args.shard, args.num_shards)
    if is_first():
        left = f"{missing} results are left to the other jobs"
        print(left if missing else f"wrote {args.output}")
    return 0


def _print(items: Iterable[Any], size: int, compute: Callable, first_process: bool) -> None:
    """Each batch as soon as it is known."""
    remaining, first = iter(items), 0
    while some := list(itertools.islice(remaining, size)):
        for result in compute(some, first):
            if first_process:
                print(json.dumps(result, ensure_ascii=False), flush=True)
        first += len(some)


def _description(args: argparse.Namespace, model: TrainedModel, step: int) -> dict[str, Any]:
    """What the results depend on."""
    if args.task is not None:
        what = {"task": args.task, "split": args.split, "places": data_flags.data_locations(args)}
    else:
        file = Path(args.input).resolve()
        state = file.stat() if file.exists() else None  # reading it says that it is not there
        what = {"input": str(file), "state": state and [state.st_size, state.st_mtime_ns]}
    how = {"score": True} if args.score else vars(model.decoding)
    return {"run": str(model.folder.resolve()), **what, **how, **model.settings(step)}
