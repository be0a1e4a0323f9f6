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
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STREAMS = (1, 2, 4, 8)
BATCH_SIZE, TURNS, SECONDS = 32, 3, 8


def write_rows(path: Path, rows: int) -> None:
    """Questions of 12 words and answers of 4, as JSON lines."""
    draw = random.Random(0)

    def words(count: int) -> str:
        return " ".join(f"word{draw.randrange(500)}" for _ in range(count))

    lines = (json.dumps({"question": words(12), "answer": words(4)}) for _ in range(rows))
    path.write_text("".join(f"{line}\n" for line in lines))


def read(path: Path, streams: int) -> None:
    """Prints tokens, seconds and CPU seconds of reading the task for some seconds."""
    import seqio
    import tensorflow as tf

    from switch_jax.config import DataConfig
    from switch_jax.data.checks import open_tasks
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
    batches = TrainBatches(open_tasks(config), BATCH_SIZE)
    for _ in range(5):  # opens the file, and traces the graphs
        next(batches)
    tokens, start, cpu = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - start < SECONDS:
        batch, _ = next(batches)
        for name in ("encoder_segment_ids", "decoder_segment_ids"):
            tokens += int((batch[name] > 0).sum())
    print(tokens, time.perf_counter() - start, time.process_time() - cpu, flush=True)
    os._exit(0)  # without waiting for what is read ahead


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=400, help="rows of the task")
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--streams", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        return read(args.read, args.streams)
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"  # of the processes that read
    totals = {streams: [0.0, 0.0, 0.0] for streams in STREAMS}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        write_rows(path, args.rows)
        for _ in range(TURNS):
            for streams, total in totals.items():
                flags = ["--read", str(path), "--streams", str(streams)]
                command = [sys.executable, __file__, *flags]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
                for index, figure in enumerate(done.stdout.split()[-3:]):
                    total[index] += float(figure)
    print("| streams | tokens/s | tokens per CPU second |\n|---|---|---|")
    for streams, (tokens, seconds, cpu) in totals.items():
        print(f"| {streams} | {tokens / seconds:,.0f} | {tokens / cpu:,.0f} |")


if __name__ == "__main__":
    main()
