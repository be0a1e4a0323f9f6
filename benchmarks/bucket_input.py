"""The input pipeline on text in a bucket, beside the same text on this machine's disk.

    python benchmarks/bucket_input.py [--rounds 6]    # about 12 minutes on two cores

The bucket is on this machine too, in a server of Cloud Storage's protocol, asked directly and
through a proxy that answers after 30 milliseconds, and one time in a hundred after a second more.
Each pipeline has a process of its own; they take turns as in `input_pipeline.py`. The figures are
real tokens by seconds and by CPU seconds of the process, and the most memory that it took. Server
and proxy are in other processes, but take their share of the same cores.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import input_pipeline
from input_pipeline import SETTINGS, Pipeline

STREAMS = (1, 8)
LINES = 10_000  # of each of 16 files: 12 MB, which the server keeps in memory
DELAYS = {"delay": 0.03, "late": 0.01, "late_delay": 1}
SETTING, BATCHES = "512/114", 80


def text_batches(folder: str, streams: int) -> Iterator[tuple]:
    """Segments of the batches of a task that reads the files of a folder."""
    from switch_jax.config import DataConfig
    from switch_jax.data.checks import open_tasks
    from switch_jax.data.train_batches import TrainBatches

    input_pipeline.add_task(f"{folder}/text_*.txt")
    inputs, targets, batch_size, _ = SETTINGS[SETTING]
    lengths = {"inputs": inputs, "targets": targets}
    config = DataConfig("many_lines", lengths, data_streams=streams)
    batches = TrainBatches(open_tasks(config), batch_size)
    return ((b["encoder_segment_ids"], b["decoder_segment_ids"]) for b, _ in batches)


def copy_to_bucket(folder: Path) -> None:
    from etils import epath

    for file in sorted(folder.iterdir()):
        (epath.Path("gs://bucket/text") / file.name).write_bytes(file.read_bytes())


def print_throughput(rounds: int) -> None:
    from switch_jax import storage  # noqa: F401  chooses the clients
    from tests.storage import gcs_server, slow_proxy

    with (
        tempfile.TemporaryDirectory() as folder,
        gcs_server.serve() as server,
        slow_proxy.serve(server) as proxy,
    ):
        input_pipeline.write_files(Path(folder), LINES)
        gcs_server.set_environment(server)
        copy_to_bucket(Path(folder))
        proxy.faults = slow_proxy.Faults(**DELAYS)
        places = {
            "disk": (folder, server),
            "bucket": ("gs://bucket/text", server),
            "slow bucket": ("gs://bucket/text", proxy.url),
        }
        print("| streams | text in | tokens/s | tokens per CPU second | to the disk's | MB |")
        print("|---|---|---|---|---|---|", flush=True)
        for streams in STREAMS:
            print_places(places, streams, rounds)
        print(f"\n{len(proxy.requests):,} requests to the slow bucket, ", end="")
        print(f"of {proxy.bytes_sent / len(proxy.requests) / 1024:,.0f} KiB on average")


def print_places(places: dict[str, tuple[str, str]], streams: int, rounds: int) -> None:
    from tests.storage import gcs_server

    pipelines = []
    try:
        for name, (folder, url) in places.items():
            arguments = [__file__, "--serve", folder, "--streams", str(streams)]
            pipelines.append(Pipeline(name, arguments, gcs_server.environment(url)))
        for pipeline in pipelines:
            pipeline.turn(SETTING, 1)  # opens the files, and fills the buffers
        turns = [[p.turn(SETTING, BATCHES) for p in pipelines] for _ in range(rounds)]
        speeds = [[t[0] / t[2] for t in turn] for turn in turns]
        for index, pipeline in enumerate(pipelines):
            tokens, _, wall, cpu = map(sum, zip(*(turn[index] for turn in turns), strict=True))
            ratio = statistics.median(speed[index] / speed[0] for speed in speeds)
            figures = f"{tokens / wall:,.0f} | {tokens / cpu:,.0f} | {ratio:.2f}"
            memory = f"{pipeline.peak_memory() / 1e6:,.0f}"
            print(f"| {streams} | {pipeline.name} | {figures} | {memory} |", flush=True)
    finally:
        for pipeline in pipelines:
            pipeline.end()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=6, help="turns of each pipeline")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--streams", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        input_pipeline.serve(lambda _: text_batches(args.serve, args.streams))
    else:
        print_throughput(args.rounds)


if __name__ == "__main__":
    main()
