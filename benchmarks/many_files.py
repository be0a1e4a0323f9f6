"""A task of 100,000 files in a bucket: what it takes to list them, and to read the first batch.

    python benchmarks/many_files.py [--files 100000]    # half a minute

The bucket is in a server of this file's own, in another process: it has Cloud Storage's pages of
1,000 names and its fields, and finds the next page at once. The server that the tests use goes
through all names for each page, and takes minutes for so many. Seconds, CPU seconds, and the memory
that was added are of the client's process, with its libraries loaded.
"""

import argparse
import http.server
import json
import os
import subprocess
import sys
import time
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

PAGE = 1000  # names


def object_name(number: int) -> str:
    return f"many/part-{number:07}.txt"


def content(name: str) -> bytes:
    return f"some words of the one line of {name}\n".encode()


class Bucket(http.server.BaseHTTPRequestHandler):
    """Answers listings and reads as Cloud Storage does; objects are computed from their names."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    files = 0

    def do_GET(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        name = urllib.parse.unquote(url.path.rpartition("/")[2])
        if url.path.rstrip("/").endswith("/o"):
            self.answer(200, json.dumps(self.page(query)).encode())
        elif not name.startswith("many/"):
            self.answer(404, b"{}")
        elif query.get("alt") == "media":
            whole = content(name)
            begin, end = self.headers.get("Range", "bytes=0-").split("=")[1].split("-")
            part = whole[int(begin) : int(end or len(whole)) + 1]
            range_sent = f"bytes {begin}-{int(begin) + len(part) - 1}/{len(whole)}"
            self.answer(206, part, {"X-Goog-Generation": "1", "Content-Range": range_sent})
        else:
            self.answer(200, json.dumps(self.described(name)).encode())

    def page(self, query: dict[str, str]) -> dict:
        begin = int(query.get("pageToken", 0))
        end = min(begin + PAGE, self.files)
        names = map(object_name, range(begin, end))
        items = [self.described(n) for n in names if n.startswith(query.get("prefix", ""))]
        return {"kind": "storage#objects", "items": items} | (
            {"nextPageToken": str(end)} if end < self.files else {}
        )

    def described(self, name: str) -> dict:
        size = str(len(content(name)))
        fields = {"bucket": "bucket", "updated": "2026-01-01T00:00:00Z", "generation": "1"}
        return {"kind": "storage#object", "name": name, "size": size, **fields}

    def answer(self, code: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(code)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)


def serve(port: int, files: int) -> None:
    Bucket.files = files
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Bucket)
    print("ready", flush=True)
    server.serve_forever()


def measure() -> None:
    """Prints a row for each step; this process's environment names the server."""
    import input_pipeline

    from switch_jax import storage
    from switch_jax.config import DataConfig
    from switch_jax.data.catalogue.checks import open_tasks
    from switch_jax.data.train_batches import TrainBatches

    input_pipeline.add_task("gs://bucket/many/*.txt")
    storage.exists("gs://bucket/none")  # the client is loaded
    config = DataConfig("many_lines", {"inputs": 64, "targets": 16}, data_streams=1)
    print("| | seconds | CPU seconds | MB more |\n|---|---|---|---|")
    tasks = row("list them; a digest of names and sizes", lambda: open_tasks(config))
    stacks = input_pipeline.stacks()
    row("the first batch of 4 rows", lambda: next(TrainBatches(tasks, stacks, 4)))


def row(name: str, function: Callable[[], Any]) -> Any:
    from switch_jax.monitoring import memory_in_use

    memory = memory_in_use()["host"]
    start, cpu = time.perf_counter(), time.process_time()
    result = function()
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
    more = (memory_in_use()["host"] - memory) * 1024
    print(f"| {name} | {seconds:.2f} | {cpu_seconds:.2f} | {more:.0f} |", flush=True)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.port:
        serve(args.port, args.files)
        return
    from tests.storage import gcs_server

    port = gcs_server.free_port()
    command = [sys.executable, __file__, f"--files={args.files}", f"--port={port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            server.stdout.readline()
            os.environ.update(gcs_server.environment(f"http://127.0.0.1:{port}"))
            measure()
        finally:
            server.kill()


if __name__ == "__main__":
    main()
