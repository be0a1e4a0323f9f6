"""The host's input pipeline alone, from text to packed batches, beside seqio's own.

    python benchmarks/input_pipeline.py [--rounds 12]    # about 10 minutes on two cores

Each pipeline has a process of its own. They take turns, and all but one are stopped meanwhile: what
they read ahead in the background would count for the others. The figures are real tokens, inputs
and targets, by seconds and by CPU seconds (user and system) of the process. They are totals over
all turns and no medians, since the work comes in bursts: the first example of a block, or of
seqio's shuffle buffer, waits for all of it. Then the time to the first batch, of a new run and of
one deep in its data, each in a fresh process, and the bytes that it read. At last what opening a
mixture of 100 tasks takes; `--opening` prints that alone, in a minute.
"""

import argparse
import gzip
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

NAME = "english_span_corruption"
# Lengths, rows of a batch, and batches of a turn. Twelve turns read some times what 8 streams of 3
# tasks have in a block each, the longest burst.
SETTINGS = {"512/114": (512, 114, 128, 20), "64/16": (64, 16, 64, 320)}
STREAMS = (1, 2, 8)
FILES, LINES = 16, 100_000
DEEP = "first batch at step 1,000,000"
MIXTURE = "udhr"


def stacks() -> Any:
    """Those of a model; its sizes do not matter to the data."""
    from switch_jax.config import ModelConfig

    return ModelConfig(
        num_embeddings=1, embed_dim=1, mlp_dim=1, head_dim=1, num_heads=1,
        num_encoder_layers=1, num_decoder_layers=1,
    ).stacks  # fmt: skip


def our_batches(inputs: int, targets: int, batch_size: int, streams: int) -> Iterator[tuple]:
    """Segments of our batches' inputs and targets."""
    from switch_jax.config import DataConfig
    from switch_jax.data.catalogue.checks import open_tasks
    from switch_jax.data.train_batches import TrainBatches

    lengths = {"inputs": inputs, "targets": targets}
    batches = TrainBatches(
        open_tasks(DataConfig(NAME, lengths, data_streams=streams)), stacks(), batch_size
    )
    return ((b["encoder_segment_ids"], b["decoder_segment_ids"]) for b, _ in batches)


def seqio_batches(inputs: int, targets: int, batch_size: int) -> Iterator[tuple]:
    """The same of seqio's."""
    import seqio
    import tensorflow as tf

    import switch_jax.tasks.english  # noqa: F401  registers the task

    dataset = seqio.get_dataset(
        NAME,
        {"inputs": inputs, "targets": targets},
        dataset_split="train",
        shuffle=True,
        num_epochs=None,
        seed=0,
        feature_converter=seqio.EncDecFeatureConverter(pack=True),
    )
    batches = dataset.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
    return (
        (b["encoder_segment_ids"], b["decoder_segment_ids"]) for b in batches.as_numpy_iterator()
    )


def serve(open_pipeline: Callable[[str], Iterator[tuple]]) -> None:
    """A pipeline's process: for each line, a setting and a number, reads so many batches.

    It answers with their real tokens, all their places, seconds and CPU seconds.

    Args:
      open_pipeline: from a setting to segments of batches.
    """
    opened: dict[str, Iterator] = {}
    for line in sys.stdin:
        setting, batches = line.split()
        if setting not in opened:
            opened[setting] = open_pipeline(setting)
        tokens = places = 0
        start, cpu = time.perf_counter(), time.process_time()
        for _ in range(int(batches)):
            for segments in next(opened[setting]):
                tokens, places = tokens + int((segments > 0).sum()), places + segments.size
        print(tokens, places, time.perf_counter() - start, time.process_time() - cpu, flush=True)


class Pipeline:
    """A pipeline in a process of its own, which runs while it has its turn and not else."""

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> None:
        """Starts a program that calls `serve`; `environment`: added to that of this process."""
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, *arguments], env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
            start_new_session=True,  # a shell that ends would hang up on stopped processes
        )  # fmt: skip
        self._process.send_signal(signal.SIGSTOP)

    def turn(self, setting: str, batches: int) -> list[float]:
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(f"{setting} {batches}\n")
        line = self._process.stdout.readline()
        self._process.send_signal(signal.SIGSTOP)
        if not line:
            sys.exit(f"the process of '{self.name}' ended early; its message is above")
        return [float(x) for x in line.split()]

    def peak_memory(self) -> int:
        """The most memory that the process took so far, in bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


def print_throughput(rounds: int) -> None:
    print("| lengths, rows | pipeline | tokens/s | tokens per CPU second | CPUs busy | padding |")
    print("|---|---|---|---|---|---|")
    pipelines = [
        Pipeline(
            f"ours, {streams} stream{'s' * (streams > 1)}" if streams else "seqio",
            [__file__, "--serve", str(streams)],
        )
        for streams in (*STREAMS, 0)
    ]
    try:
        for setting, (_, _, rows, batches) in SETTINGS.items():
            for pipeline in pipelines:
                pipeline.turn(setting, 1)  # opens the files, and fills the buffers
            turns = [[p.turn(setting, batches) for p in pipelines] for _ in range(rounds)]
            for pipeline, its_turns in zip(pipelines, zip(*turns, strict=True), strict=True):
                tokens, places, wall, cpu = map(sum, zip(*its_turns, strict=True))
                figures = f"{tokens / wall:,.0f} | {tokens / cpu:,.0f} | {cpu / wall:.2f}"
                padding = f"{1 - tokens / places:.1%}"
                print(
                    f"| {setting}, {rows} | {pipeline.name} | {figures} | {padding} |", flush=True
                )
    finally:  # or else they would stay, stopped
        for pipeline in pipelines:
            pipeline.end()


def write_files(folder: Path, count: int = LINES) -> None:
    """Files of the lines that come with switch_jax, over and over: one with many names."""
    from switch_jax.tasks.english import CORPORA, DATA

    text = b"".join(gzip.open(DATA / f"{c}.train.txt.gz").read() for c in CORPORA)
    lines = text.splitlines(keepends=True)
    lines *= -(-count // len(lines))
    first = folder / "text_00.txt"
    first.write_bytes(b"".join(lines[:count]))
    for number in range(1, FILES):
        os.link(first, folder / f"text_{number:02}.txt")


def add_task(files: str) -> None:
    """Registers a task that reads the lines of files."""
    import seqio
    import t5.data.preprocessors

    from switch_jax.tasks.english import VOCABULARY, as_targets

    feature = seqio.Feature(VOCABULARY, add_eos=True)
    seqio.TaskRegistry.add(
        "many_lines",
        source=seqio.TextLineDataSource({"train": files}),
        preprocessors=[
            as_targets,
            seqio.preprocessors.tokenize,
            t5.data.preprocessors.span_corruption,
            seqio.preprocessors.append_eos_after_trim,
        ],
        output_features={"inputs": feature, "targets": feature},
    )


def last_blocks(folder: Path, streams: int) -> int:
    """Which block of a stream's epoch comes after 95 % of it; it has one unit, in 512 KiB each."""
    return int(0.95 * FILES // streams * (folder / "text_00.txt").stat().st_size / 2**19)


def time_first_batch(folder: str, streams: int, block: int, **options: Any) -> list[float]:
    """Seconds, CPU seconds and bytes read of `first_batch` in a new process."""
    flags = ["--first", folder, "--streams", str(streams), "--block", str(block)]
    command = [sys.executable, str(Path(__file__)), *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, **options)
    return [float(x) for x in done.stdout.split()]


def first_batch(folder: str, streams: int, block: int) -> None:
    """Prints seconds to the first batch of a task of those files, and the bytes read for it.

    Args:
      folder: which has them, on a disk or in a bucket.
      streams: which read them.
      block: of the run's epoch 1000 where each stream goes on; 0: a run that begins.
    """
    from switch_jax.config import DataConfig
    from switch_jax.data.catalogue.checks import open_tasks
    from switch_jax.data.reading.position import Cursor, Position, StreamPosition
    from switch_jax.data.train_batches import TrainBatches

    add_task(f"{folder}/text_*.txt")
    inputs, targets, batch_size, _ = SETTINGS["512/114"]
    config = DataConfig("many_lines", {"inputs": inputs, "targets": targets}, data_streams=streams)
    position = None
    if block:
        place = Cursor(epoch=1000, unit=0, block=block, example=0)
        draws = 100_000_000
        position = Position(
            1_000_000,
            {i: StreamPosition(draws, {"many_lines": place}) for i in range(streams)},
        )
    read, cpu, start = bytes_read(), time.process_time(), time.perf_counter()
    _, after = next(TrainBatches(open_tasks(config), stacks(), batch_size, position))
    seconds = time.perf_counter() - start
    assert after.batches == (1_000_001 if block else 1)
    print(seconds, time.process_time() - cpu, bytes_read() - read, flush=True)
    os._exit(0)  # without waiting for what is read ahead


def bytes_read() -> int:
    """By this process so far, from the disk or from the system's cache of it."""
    return int(Path("/proc/self/io").read_text().split()[1])


def print_first_batches(times: int) -> None:
    print(f"\n| {FILES} files of {LINES:,} lines | streams | seconds | CPU seconds | MB read |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder))
        kinds = [(streams, deep) for streams in (STREAMS[0], STREAMS[-1]) for deep in (0, 1)]
        results: dict[tuple[int, int], list[list[float]]] = {kind: [] for kind in kinds}
        for _ in range(times):
            for streams, deep in kinds:
                block = deep * last_blocks(Path(folder), streams)
                results[streams, deep].append(time_first_batch(folder, streams, block))
        size = (Path(folder) / "text_00.txt").stat().st_size
    for (streams, deep), figures in results.items():
        wall, cpu, read = (statistics.median(column) for column in zip(*figures, strict=True))
        name = DEEP if deep else "first batch at step 0"
        print(f"| {name} | {streams} | {wall:.1f} | {cpu:.1f} | {read / 1e6:.0f} |")
    print(f"\nA file has {size / 1e6:.0f} MB.")


def open_mixture() -> None:
    """Prints the CPU seconds of the imports, and of the first example of all tasks of a mixture."""
    from switch_jax.config import DataConfig
    from switch_jax.data.catalogue.checks import open_tasks
    from switch_jax.data.reading.position import Cursor
    from switch_jax.data.task_examples import TaskExamples

    imported = time.process_time()
    config = DataConfig(MIXTURE, {"inputs": 64, "targets": 16})
    streams = []  # they stay open, as in a run
    for task in open_tasks(config):
        streams.append(TaskExamples(task, config, ()).read(0, Cursor()))
        next(streams[-1])
    print(len(streams), imported, time.process_time() - imported, flush=True)
    os._exit(0)  # without waiting for what is read ahead


def print_opening() -> None:
    command = [sys.executable, __file__, "--mixture"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    tasks, imports, opening = done.stdout.split()
    print("\n| mixture | tasks | CPU seconds: imports | first example of each task |")
    print("|---|---|---|---|")
    print(f"| {MIXTURE} | {tasks} | {float(imports):.1f} | {float(opening):.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=12, help="turns of each pipeline and setting")
    parser.add_argument("--opening", action="store_true", help="print the last table alone")
    parser.add_argument("--mixture", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--first", help=argparse.SUPPRESS)
    parser.add_argument("--streams", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--block", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve is not None:
        streams = [args.serve] if args.serve else []
        make = our_batches if args.serve else seqio_batches
        serve(lambda setting: make(*SETTINGS[setting][:3], *streams))
    elif args.first:
        first_batch(args.first, args.streams, args.block)
    elif args.mixture:
        open_mixture()
    else:
        if not args.opening:
            print_throughput(args.rounds)
            print_first_batches(times=2)
        print_opening()


if __name__ == "__main__":
    main()
