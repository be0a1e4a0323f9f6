"""Evaluate the checkpoints of a run.

    switch_jax eval runs/tuned                             # the newest, on the run's own tasks
    switch_jax eval runs/tuned --task=super_glue_v102_proportional --checkpoint=all
    switch_jax eval runs/tuned --task=trivia_qa_open --split=test --num_beams=4

For each task it computes the log-probability and the token accuracy of the targets and, if the task
has metrics, these metrics of the model's predictions. For a mixture it also computes the average
over its tasks. The results go to MODEL_DIR/eval (metrics.jsonl, TensorBoard, predictions/). Results
that are already there are not computed again, so the command can be repeated during a run.
"""

import argparse
import math
from collections.abc import Sequence
from typing import Any

from switch_jax.cli import gin_flags, inference_flags


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--task", metavar="NAME", help="task or mixture; default: the run's")
    add("--split", default="validation", help="default: %(default)s")
    inference_flags.add_checkpoint_flag(parser, "latest, best, all, or a step")
    add(
        "--max_examples",
        type=int,
        metavar="N",
        help="decode only the first N examples of each task; the scores of the targets are of N "
        "rows, which hold several examples with PACK, rounded up to whole batches",
    )
    inference_flags.add_inference_flags(parser)


def main(args: argparse.Namespace) -> int:
    gin_flags.announce_loading()
    model = inference_flags.open_model(args)
    decoding = inference_flags.decoding_config(args, model.config)

    from switch_jax.evaluation.evaluate import evaluate_checkpoints
    from switch_jax.run_folder import RunFolder
    from switch_jax.runtime.multihost import is_first

    with inference_flags.fields_named_as_flags():
        records = evaluate_checkpoints(model, decoding, args.checkpoint, args.max_examples)
    if is_first():
        print("\n".join(table(records)))
        print(f"written to {RunFolder(model.path).evaluation}")
    return 0


def table(records: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each metric of each task and checkpoint, beside the majority baseline if any.

    It says of how many examples or target tokens a metric is. Of what is teacher-forced it shows
    `neg_log_perplexity` and shares of the tokens, with their units.
    """
    from switch_jax.utils.units import aligned

    rows = [
        (
            str(record["step"]),
            record["task"],
            record["kind"].replace("_", " "),
            *_value_and_size(record, name, value),
            "" if (baseline := _baselines(record).get(name)) is None else _number(baseline),
        )
        for record in records
        for name, value in record["metrics"].items()
        if record["kind"] == "generated" or not name.endswith(("cross_entropy", "tokens"))
    ]
    has_baseline = any(map(_baselines, records))
    head = ("step", "task", "kind", "of", "metric", "value", "majority baseline" * has_baseline)
    return aligned([head, *rows], right=(0, 3, 5, 6))


def _baselines(record: dict[str, Any]) -> dict[str, float | None]:
    return record.get("majority_baseline", {})


def _value_and_size(record: dict[str, Any], name: str, value: float | None) -> tuple[str, str, str]:
    """The number of examples or tokens that a metric is of, its name, and its value."""
    from switch_jax.utils.units import counted, percent

    if record["kind"] == "generated":  # the average of a mixture is of no examples
        examples = counted(record["examples"], "example") if "examples" in record else ""
        return examples, name, _number(value)
    tokens = record["metrics"]["content_tokens" if name.startswith("content_") else "tokens"]
    size = "" if name == "dropped" else counted(round(tokens), "token")  # inputs are dropped, too
    if value is None:
        return size, name, "-"
    if name == "perplexity":
        return size, name, _number(value)
    return size, name, f"{value:.4f} nats" if name.endswith("perplexity") else percent(value)


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
