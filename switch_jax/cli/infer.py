"""Predict or score with a trained model.

    switch_jax infer runs/tuned --task=my_task --output=predictions.jsonl
    switch_jax infer runs/tuned --input=questions.txt --output=answers.jsonl --num_beams=4
    switch_jax infer runs/tuned --input=pairs.jsonl --output=scores.jsonl --score
    echo "trivia_qa question: ..." | switch_jax infer runs/tuned --input=-

The input is JSON lines with "inputs" and, to be scored, "targets"; plain text with an input on each
line; or the examples of a task. The output is JSON lines in the order of the input: "inputs",
"prediction" and its log-probability as "score"; with --score "inputs", "targets" and "score". A
text of a file that is longer than TASK_FEATURE_LENGTHS is cut off: then "cut" has the number of
tokens that were left out. Where the vocabulary lacks characters, "unknown" has the number of tokens
that stand for them.

Results are written in parts to OUTPUT.parts, so that the same command continues a stopped job.
Several jobs share the parts with --num_shards and --shard.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from switch_jax.cli import gin_flags, inference_flags
from switch_jax.storage import file_at, resolved, storage_path
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import Range

if TYPE_CHECKING:  # they load JAX and TensorFlow
    from switch_jax.inference import DecodingConfig
    from switch_jax.inference.input_records import TextExample
    from switch_jax.inference.trained_model import TrainedModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", metavar="FILE", help=".jsonl, text, or - for stdin")
    source.add_argument("--task", metavar="NAME", help="a registered task or mixture")
    add("--split", default="validation", help="of --task; default: %(default)s")
    add("--output", metavar="FILE", help="JSON lines; without it: standard output")
    add("--score", action="store_true", help="score the given targets instead of decoding")
    inference_flags.add_checkpoint_flag(parser)
    add(
        "--part_size",
        type=int,
        default=1000,
        metavar="N",
        help="results of each part, rounded up to whole batches: the batches, and so the tokens "
        "that experts drop, depend on the input only; default: %(default)s",
    )
    add("--num_shards", type=int, default=1, metavar="N", help="number of jobs")
    add("--shard", type=int, default=0, metavar="I", help="index of this job, from 0")
    inference_flags.add_inference_flags(parser)


def main(args: argparse.Namespace) -> int:
    _check_flags(args)
    gin_flags.announce_loading()
    model = inference_flags.open_model(args)
    decoding = inference_flags.decoding_config(args, model.config)
    with inference_flags.fields_named_as_flags():
        step = model.chosen_step(args.checkpoint)
    return _infer(args, model, decoding, step)


def _check_flags(args: argparse.Namespace) -> None:
    with inference_flags.fields_named_as_flags():
        Range(1, 10**6).check("num_shards", args.num_shards)
        Range(0, args.num_shards - 1).check("shard", args.shard)
        Range(1, 10**9).check("part_size", args.part_size)
    if args.output == "-":
        args.output = None
    if args.input == "-" and (args.output or args.multihost or args.process_count):
        raise UserError(
            "--input=- answers on standard output, in one process: leave out --output and the "
            "flags of processes, or write the input to a file"
        )
    if args.num_shards > 1 and not args.output:
        raise UserError("--num_shards needs an --output, where the jobs put their parts")


def _infer(
    args: argparse.Namespace, model: TrainedModel, decoding: DecodingConfig, step: int | None
) -> int:
    import jax
    from tqdm import tqdm

    from switch_jax.data.catalogue.checks import check_examples, open_tasks
    from switch_jax.inference import infer
    from switch_jax.inference.input_records import encode, read_records, text_features
    from switch_jax.inference.predictor import Predictor
    from switch_jax.inference.resumable_output import ResumableOutput
    from switch_jax.runtime.multihost import is_first

    data, batch_size = model.config.data, model.config.run.batch_size
    features = text_features(data)
    if args.task is not None:
        opened = open_tasks(data)
        check_examples(opened, stacks := model.config.model.stacks)
        examples = infer.task_examples(opened, stacks)
    else:
        records = read_records(args.input)
        examples = (encode(r, features, decoding.max_new_tokens) for r in records)
    if args.output:
        part_size = -(-args.part_size // batch_size) * batch_size
        described = _options_and_versions(args, model, decoding, step)
        output = ResumableOutput(args.output, part_size, *described, args.shard, args.num_shards)
    # On a terminal, from the first result on; answers on standard output show the progress.
    no_bar = None if is_first() and args.output else True
    counts: Counter[str] = Counter()

    def counted(examples: Iterable[TextExample]) -> Iterator[TextExample]:
        for example in examples:
            counts["read"] += 1
            yield example

    examples = counted(examples)
    with jax.set_mesh(model.mesh), tqdm(unit=" examples", delay=1e-3, disable=no_bar) as progress:
        predictor = Predictor(model.config, model.mesh, decoding)
        parameters = model.load(step)

        def compute(part: Iterable[TextExample], first_id: int) -> Iterator[dict[str, Any]]:
            of_texts = None if args.score else features
            for result in infer.predict_or_score(predictor, parameters, part, of_texts, first_id):
                progress.update()
                counts.update(["all", *({"cut", "unknown"} & result.keys())])
                yield result

        if args.output:
            missing = output.fill(examples, compute)
        else:
            for result in compute(examples, 0):
                if is_first():
                    print(json.dumps(result, ensure_ascii=False), flush=True)
    if not is_first():
        return 0
    if not counts["read"]:
        print(f"nothing to do: {args.task or args.input} has no examples", file=sys.stderr)
    lengths = dict(data.task_feature_lengths)
    for key, what in {
        "cut": f"are longer than TASK_FEATURE_LENGTHS = {lengths} and cut off: "
        '"cut" has the tokens left out',
        "unknown": "have characters that the vocabulary lacks: "
        '"unknown" has the number of their tokens',
    }.items():
        if counts[key]:
            print(f"{counts[key]} of {counts['all']} examples {what}", file=sys.stderr)
    if args.output:
        left = f"{missing} results are left to the other jobs"
        print(left if missing else f"wrote {args.output}")
    return 0


def _options_and_versions(
    args: argparse.Namespace, model: TrainedModel, decoding: DecodingConfig, step: int | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options that the results depend on, and the versions of the checkpoint and the input."""
    from switch_jax.data.reading.sources import data_locations

    settings = model.settings(step)
    versions = {name: settings.pop(name) for name in ("step", "saved")}
    if args.task is not None:
        source = {"task": args.task, "split": args.split, "places": data_locations()}
    else:
        file = resolved(storage_path(args.input))
        source = {"input": str(file)}
        versions["size and version of the input"] = None
        with contextlib.suppress(OSError):  # reading a missing file raises the error
            found = file_at(str(file))
            versions["size and version of the input"] = [found.size, found.version]
    method = {"score": True} if args.score else vars(decoding)
    return {"run": str(resolved(model.path)), **source, **method, **settings}, versions
