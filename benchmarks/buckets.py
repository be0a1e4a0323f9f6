"""A run's folder in a bucket, beside one on this machine's disk: seconds, requests, and bytes.

    python benchmarks/buckets.py [--gigabytes 1]    # about three minutes on two cores

The bucket is in a server of Cloud Storage's protocol on this machine, behind a proxy that passes
requests on at once, and for the slow bucket after 30 milliseconds, one in a hundred after a second
more. Each place is measured in a process of its own.
"""

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

RECORDS, RUNS = 50_000, 20
SLOW = {"delay": 0.03, "late": 0.01, "late_delay": 1}


def measured(gigabytes: float, place: str) -> Iterator[tuple[str, float]]:
    """What was done, and the seconds it took."""
    import jax.numpy as jnp
    import numpy as np

    from switch_jax.checkpointing import Checkpoints, find_checkpoint
    from switch_jax.checkpointing.read_only import newest_saved
    from switch_jax.cli import main as command
    from switch_jax.monitoring import MetricWriter
    from switch_jax.run_folder import RunFolder, create_run_folder

    rng = np.random.default_rng(0)  # numbers that cannot be compressed
    state = {
        f"matrix_{i}": jnp.asarray(rng.random((1024, 1024), np.float32))
        for i in range(int(gigabytes * 256))
    }
    folder = create_run_folder(f"{place}/large")
    checkpoints = Checkpoints(folder, keep=3)

    def save(step: int) -> None:
        checkpoints.save(step, state, {"position": {}}, None)
        checkpoints.wait()

    save(1)  # the first one starts clients and threads
    yield f"save a state of {gigabytes:g} GB", seconds(lambda: save(2))
    yield "restore it", seconds(lambda: checkpoints.restore(state))
    checkpoints.close()

    folder = create_run_folder(f"{place}/long")
    small = {"x": jnp.arange(3.0)}
    checkpoints = Checkpoints(folder, keep=3)
    for step in (1, 2, 3):
        checkpoints.save(step, small, {"position": {}}, None)
    checkpoints.close()
    record = {"kind": "train", "step": 3, "seconds": 1.0, "loss": 2.5, "tokens_per_second": 1e6}
    line = json.dumps({**record, "batch_hashes": "0123456789abcdef " * 40}) + "\n"
    write_records(folder, line)

    def start() -> None:
        newest_saved(folder)
        Checkpoints(folder, keep=3).close()
        MetricWriter(folder).last_record("train", 3)

    yield f"open a run of 3 checkpoints and {RECORDS:,} records", seconds(start)
    writer = MetricWriter(folder)
    yield "append a record", seconds(lambda: writer.write("train", 4, 1.0, {"loss": 2.0}), 10)
    writer.close()

    for run in range(RUNS):
        folder = create_run_folder(f"{place}/runs/{run}")
        folder.metrics.write_text(line * 100)
        folder.status.write_text('{"state": "running", "time": 1, "started": 1}')
        folder.config.write_text("TRAIN_STEPS = 100\n")
    runs = [f"{place}/runs/{run}" for run in range(RUNS)]

    def status() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            command(["status", *runs])

    yield f"status of {RUNS} runs", seconds(status)
    assert find_checkpoint(f"{place}/long").name == "3" and RunFolder.at(runs[0]).path.exists()


def write_records(folder: Any, line: str) -> None:
    from switch_jax.storage import appended_file

    file = appended_file(folder.metrics)
    per_part = 300
    for _ in range(RECORDS // per_part):
        file.append(line.encode() * per_part)


def seconds(action: Callable[[], object], times: int = 1) -> float:
    print("START", flush=True)
    time.sleep(0.2)  # until the other process counts requests anew
    start = time.perf_counter()
    for _ in range(times):
        action()
    return (time.perf_counter() - start) / times


def print_places(gigabytes: float) -> None:
    from tests.storage import gcs_server, slow_proxy

    print("| | place | seconds | requests | MB received |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as disk, gcs_server.serve() as server:
        with slow_proxy.serve(server) as proxy:
            places = {
                "disk": disk,
                "bucket": "gs://bucket/quick",
                "slow bucket": "gs://bucket/slow",
            }
            for name, place in places.items():
                proxy.faults = slow_proxy.Faults(**(SLOW if name == "slow bucket" else {}))
                command = [sys.executable, __file__, f"--gigabytes={gigabytes}", f"--place={place}"]
                env = {**os.environ, **gcs_server.environment(proxy.url)}
                with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as child:
                    assert child.stdout is not None
                    requests = sent = 0
                    for text in child.stdout:
                        if text.startswith("START"):
                            requests, sent = len(proxy.requests), proxy.bytes_sent
                            continue
                        what, took = json.loads(text)
                        counts = f"{len(proxy.requests) - requests:,} | "
                        counts += f"{(proxy.bytes_sent - sent) / 1e6:,.1f}"
                        print(f"| {what} | {name} | {took:.3g} | {counts} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the state that is saved")
    parser.add_argument("--place", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.place is None:
        print_places(args.gigabytes)
        return
    for measurement in measured(args.gigabytes, args.place):
        print(json.dumps(measurement), flush=True)


if __name__ == "__main__":
    main()
