"""A task of few rows, read in one and in several streams.

    python benchmarks/small_data.py [--rows 400]    # four minutes

The task reads JSON lines with a Python function, as tasks of one's own often do, and has the ids of
bytes. Each number of streams has a process of its own; they take turns. The figures are real
tokens, inputs and targets, by seconds and by CPU seconds of the process.
"""

import argparse
import json
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from input_pipeline import Pipeline, serve, stacks

STREAMS = (1, 2, 4, 8)
BATCH_SIZE, TURNS, BATCHES = 32, 3, 200


def write_rows(path: Path, rows: int) -> None:
    """Questions of 12 words and answers of 4, as JSON lines."""
    draw = random.Random(0)

    def words(count: int) -> str:
        return " ".join(f"word{draw.randrange(500)}" for _ in range(count))

    lines = (json.dumps({"question": words(12), "answer": words(4)}) for _ in range(rows))
    path.write_text("".join(f"{line}\n" for line in lines))


def segments(path: Path, streams: int) -> Iterator[tuple]:
    """Segments of the task's batches, inputs and targets."""
    import seqio
    import tensorflow as tf

    from switch_jax.config import DataConfig
    from switch_jax.data.catalogue.checks import open_tasks
    from switch_jax.data.train_batches import TrainBatches

    def fields(line: tf.Tensor) -> tuple[str, str]:
        row = json.loads(line.numpy())
        return row["question"], row["answer"]

    @seqio.map_over_dataset
    def parse(line: tf.Tensor) -> dict[str, tf.Tensor]:
        question, answer = tf.py_function(fields, [line], [tf.string, tf.string])
        return {"inputs": tf.reshape(question, []), "targets": tf.reshape(answer, [])}

    feature = seqio.Feature(seqio.ByteVocabulary(), add_eos=True)
    seqio.TaskRegistry.add(
        "few_rows",
        source=seqio.TextLineDataSource({"train": str(path)}),
        preprocessors=[parse, seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
        output_features={"inputs": feature, "targets": feature},
    )
    config = DataConfig("few_rows", {"inputs": 128, "targets": 64}, data_streams=streams)
    for batch, _ in TrainBatches(open_tasks(config), stacks(), BATCH_SIZE):
        yield batch["encoder_segment_ids"], batch["decoder_segment_ids"]


parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("--rows", type=int, default=400, help="rows of the task")
parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
parser.add_argument("--streams", type=int, help=argparse.SUPPRESS)
args = parser.parse_args()
if args.read:
    serve(lambda _: segments(args.read, args.streams))
    raise SystemExit
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # of the processes that read
print("| streams | tokens/s | tokens per CPU second |\n|---|---|---|")
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "rows.jsonl"
    write_rows(path, args.rows)
    flags = [["--read", str(path), "--streams", str(streams)] for streams in STREAMS]
    pipelines = [Pipeline(f"{each[-1]} streams", [__file__, *each]) for each in flags]
    try:
        for pipeline in pipelines:
            pipeline.turn("few_rows", 5)  # opens the file, and traces the graphs
        turns = [[p.turn("few_rows", BATCHES) for p in pipelines] for _ in range(TURNS)]
    finally:  # or else they would stay, stopped
        for pipeline in pipelines:
            pipeline.end()
for streams, of_one in zip(STREAMS, zip(*turns, strict=True), strict=True):
    tokens, _, seconds, cpu = map(sum, zip(*of_one, strict=True))
    print(f"| {streams} | {tokens / seconds:,.0f} | {tokens / cpu:,.0f} |")
