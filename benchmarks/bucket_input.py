"""The input pipeline on text in a bucket, beside the same text on this machine's disk.

    python benchmarks/bucket_input.py [--rounds 6]    # about 12 minutes on two cores

The bucket is on this machine too, in a server of Cloud Storage's protocol, asked directly and
through a proxy that answers after 30 milliseconds, and one time in a hundred after a second more.
Each pipeline has a process of its own; they take turns as in `input_pipeline.py`. The figures are
real tokens by seconds and by CPU seconds of the process, the most memory that it took, and what the
proxy counted, by seconds of the turns. Then the time to the first batch, of a new run and of one
that goes on at step 1,000,000, each in a fresh process: medians of three turns. Server and proxy
are in other processes, but take their share of the same cores.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))
import input_pipeline
import numpy as np
from input_pipeline import SETTINGS, Pipeline, stacks

if TYPE_CHECKING:
    from tests.storage.slow_proxy import SlowProxy

STREAMS = (1, 8)
LINES = 10_000  # of each of 16 files: 12 MB, which the server keeps in memory
DELAYS = {"delay": 0.03, "late": 0.01, "late_delay": 1}
SETTING, BATCHES = "512/114", 80
FIRST_BATCHES = 3  # turns


def text_batches(folder: str, streams: int) -> Iterator[tuple]:
    """Segments of the batches of a task that reads the files of a folder."""
    from switch_jax.config import DataConfig
    from switch_jax.data.catalogue.checks import open_tasks
    from switch_jax.data.train_batches import TrainBatches

    input_pipeline.add_task(f"{folder}/text_*.txt")
    inputs, targets, batch_size, _ = SETTINGS[SETTING]
    lengths = {"inputs": inputs, "targets": targets}
    config = DataConfig("many_lines", lengths, data_streams=streams)
    batches = TrainBatches(open_tasks(config), stacks(), batch_size)
    return ((b["encoder_segment_ids"], b["decoder_segment_ids"]) for b, _ in batches)


def copy_to_bucket(folder: Path) -> None:
    from etils import epath

    for file in sorted(folder.iterdir()):
        (epath.Path("gs://bucket/text") / file.name).write_bytes(file.read_bytes())


def print_throughput(rounds: int) -> None:
    from switch_jax.storage import choose_clients
    from tests.storage import gcs_server, slow_proxy

    with (
        tempfile.TemporaryDirectory() as folder,
        gcs_server.serve() as server,
        slow_proxy.serve(server) as proxy,
    ):
        input_pipeline.write_files(Path(folder), LINES)
        os.environ.update(gcs_server.environment(server))
        choose_clients()
        copy_to_bucket(Path(folder))
        proxy.faults = slow_proxy.Faults(**DELAYS)
        places = {
            "disk": (folder, server),
            "bucket": ("gs://bucket/text", server),
            "slow bucket": ("gs://bucket/text", proxy.url),
        }
        print(
            "| streams | text in | tokens/s | to the disk's | tokens per CPU second | MB |", end=""
        )
        print(" requests/s | MB/s read |\n|---|---|---|---|---|---|---|---|", flush=True)
        for streams in STREAMS:
            print_places(places, streams, rounds, proxy)
        print("\n| streams | text in | first batch: s, CPU s | at step 1,000,000: s, CPU s |")
        print("|---|---|---|---|", flush=True)
        for streams in STREAMS:
            print_first_batches(places, streams, input_pipeline.last_blocks(Path(folder), streams))


def print_places(
    places: dict[str, tuple[str, str]], streams: int, rounds: int, proxy: "SlowProxy"
) -> None:
    """Prints a line for each place, given as a folder and the URL of the server to ask."""
    from tests.storage import gcs_server

    pipelines = []
    try:
        for name, (folder, url) in places.items():
            arguments = [__file__, "--serve", folder, "--streams", str(streams)]
            pipelines.append(Pipeline(name, arguments, gcs_server.environment(url)))
        for pipeline in pipelines:
            pipeline.turn(SETTING, 1)  # opens the files, and fills the buffers
        before, bytes_before = len(proxy.requests), proxy.bytes_sent
        turns = [[p.turn(SETTING, BATCHES) for p in pipelines] for _ in range(rounds)]
        requests, megabytes = len(proxy.requests) - before, (proxy.bytes_sent - bytes_before) / 1e6
        speeds = [[t[0] / t[2] for t in turn] for turn in turns]
        for index, pipeline in enumerate(pipelines):
            tokens, _, wall, cpu = map(sum, zip(*(turn[index] for turn in turns), strict=True))
            ratio = statistics.median(speed[index] / speed[0] for speed in speeds)
            figures = f"{tokens / wall:,.0f} | {ratio:.2f} | {tokens / cpu:,.0f}"
            memory = f"{pipeline.peak_memory() / 1e6:,.0f}"
            passed = f"{requests / wall:.0f} | {megabytes / wall:.1f}"
            counted = passed if places[pipeline.name][1] == proxy.url else "- | -"
            print(f"| {streams} | {pipeline.name} | {figures} | {memory} | {counted} |", flush=True)
    finally:
        for pipeline in pipelines:
            pipeline.end()


def print_first_batches(places: dict[str, tuple[str, str]], streams: int, block: int) -> None:
    """Prints seconds to the first batch; `block`: of its epoch 1000 where a run goes on."""
    from tests.storage import gcs_server

    turns = [
        [
            [
                input_pipeline.time_first_batch(
                    folder, streams, start, env={**os.environ, **gcs_server.environment(url)}
                )
                for start in (0, block)
            ]
            for folder, url in places.values()
        ]
        for _ in range(FIRST_BATCHES)
    ]
    seconds = np.median(turns, axis=0)  # [place, first or later, seconds and others]
    for name, (first, later) in zip(places, seconds, strict=True):
        figures = f"{first[0]:.1f}, {first[1]:.1f} | {later[0]:.1f}, {later[1]:.1f}"
        print(f"| {streams} | {name} | {figures} |", flush=True)


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
