"""Reads a whole file, a byte range, or a copy that is made on this machine.

Byte ranges are read by TensorStore's key-value stores, which repeat requests that failed. They
serve many reads at once: call `read_range` in many threads.
"""

import atexit
import contextlib
import errno
import functools
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from etils import epath

from switch_jax.storage.clients import file_system
from switch_jax.storage.errors import as_os_errors
from switch_jax.storage.listing import file_at
from switch_jax.storage.paths import in_bucket
from switch_jax.storage.retries import TENSORSTORE_RETRIES

# By how TensorStore's messages begin. A name that is not in its bucket is no error there.
_ERRNOS = {
    "PERMISSION_DENIED": errno.EACCES,
    "UNAUTHENTICATED": errno.EACCES,
    "NOT_FOUND": errno.ENOENT,
    "OUT_OF_RANGE": errno.ENODATA,
}

_AT_A_TIME = 8 * 2**20  # bytes of a file that is copied
_COPIES_AT_ONCE = 16
_copies = contextlib.ExitStack()  # those that stay until the process ends
_copying = threading.Lock()
atexit.register(_copies.close)


def read_bytes(file: epath.Path) -> bytes:
    """Reads a file, in a bucket by a single request; raises OSError with its name."""
    with as_os_errors(str(file)):
        return file_system(file).cat_file(str(file)) if in_bucket(file) else file.read_bytes()


def read_range(path: str, begin: int, end: int) -> bytes:
    """Reads the bytes of a file, on a disk or in a bucket, from `begin` up to `end`, exclusive.

    Raises OSError with the path as its file name. errno ENOENT: there is no such file; ENODATA: it
    ends before `end`; EACCES: it may not be read; EIO: the storage fails.
    """
    if in_bucket(path):
        scheme, _, name = path.partition("://")
        bucket, _, key = name.partition("/")
    else:
        scheme, bucket, key = "file", "", os.path.abspath(path).lstrip("/")
    try:
        found = key_value_store(scheme, bucket).read(key, byte_range=slice(begin, end)).result()
    except ValueError as error:
        reason = str(error).split("\n")[0]
        code = _ERRNOS.get(reason.partition(":")[0], errno.EIO)
        text = f"{os.strerror(code)} ({reason[:300]})"
        if code == errno.ENODATA:
            text = f"it ends before byte {end}"
        raise OSError(code, text, path) from error
    if found.state != "value":
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return found.value


@functools.cache
def key_value_store(scheme: str, bucket: str) -> Any:
    """Opens TensorStore's store of a bucket, or of this machine's files for the scheme "file"."""
    import tensorstore as ts

    spec: dict[str, Any] = {"driver": "file", "path": "/"}
    if scheme != "file":
        driver = {"gs": "gcs", "s3": "s3"}[scheme]
        spec = {"driver": driver, "bucket": bucket}
        spec[f"{driver}_request_retries"] = TENSORSTORE_RETRIES
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if scheme == "s3" and endpoint:  # s3fs reads the variable by itself
        spec |= {"endpoint": endpoint, "aws_region": os.environ.get("AWS_REGION", "us-east-1")}
    return ts.KvStore.open(spec).result()


def local_copy(file: str | os.PathLike[str]) -> str:
    """Returns a path on this machine; a file in a bucket is copied, again once it has changed.

    Raises OSError if it cannot be read.
    """
    path = os.fspath(file)
    if not in_bucket(path):
        return path
    with _copying:
        return _kept_copy(path, file_at(path).version)


@functools.cache
def _kept_copy(url: str, version: Any) -> str:
    (copy,) = _copies.enter_context(local_copies([url]))
    return copy


@contextlib.contextmanager
def local_copies(files: Sequence[str]) -> Iterator[list[str]]:
    """Yields paths on this machine, of copies for files in a bucket; OSError with the name."""
    if not any(map(in_bucket, files)):
        yield list(files)
        return
    with tempfile.TemporaryDirectory(prefix="switch_jax_") as folder:
        targets = [Path(folder, str(i), url.rpartition("/")[2]) for i, url in enumerate(files)]
        with ThreadPoolExecutor(_COPIES_AT_ONCE) as threads:
            list(threads.map(_copy, files, targets))
        yield list(map(str, targets))


def _copy(url: str, target: Path) -> None:
    """Copies a file of a bucket, as it is now, into a new folder on this machine."""
    size = file_at(url).size
    target.parent.mkdir()
    with as_os_errors(url), target.open("wb") as copied:  # also of this machine's disk
        for begin in range(0, size, _AT_A_TIME):
            copied.write(read_range(url, begin, min(begin + _AT_A_TIME, size)))


@contextlib.contextmanager
def local_header(file: epath.Path, header_size: Callable[[bytes], int]) -> Iterator[str]:
    """Yields a path on this machine; of a file in a bucket the header is copied, then zeros follow.

    `header_size` returns the size of the header from its first 8 bytes. Raises OSError if the file
    cannot be read.
    """
    url = str(file)
    if not in_bucket(file):
        yield url
        return
    with tempfile.NamedTemporaryFile(prefix="switch_jax_") as copy:
        size = file_at(url).size
        beginning = read_range(url, 0, min(8, size))
        copy.write(read_range(url, 0, min(header_size(beginning), size)))
        copy.truncate(size)  # takes no room
        yield copy.name
