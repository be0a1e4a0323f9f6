"""Byte ranges of files on disks and in buckets, all by TensorStore's key-value stores.

They try again what fails in passing, and can have many reads on their way: call `read_range` in
many threads.
"""

import errno
import functools
import os
from typing import Any

from switch_jax.storage.paths import in_bucket

# Of one read: 12 times more, after 0.1 s, 0.2 s, ... up to half a minute; two minutes in all.
_RETRIES = {"max_retries": 12, "initial_delay": "100ms", "max_delay": "32s"}
# By how TensorStore's messages begin. A name that is not in its bucket is no error there.
_ERRNOS = {
    "PERMISSION_DENIED": errno.EACCES,
    "UNAUTHENTICATED": errno.EACCES,
    "NOT_FOUND": errno.ENOENT,
    "OUT_OF_RANGE": errno.ENODATA,
}


def read_range(path: str, begin: int, end: int) -> bytes:
    """The bytes of a file from `begin` up to `end`, which is not included.

    Args:
      path: of this machine's file systems, or the URL of an object in a bucket.
      begin, end: begin < end.

    Raises:
      OSError: with the path as its file name. errno ENOENT: there is no such file; ENODATA: it ends
        before `end`; EACCES: it may not be read; EIO: the storage fails.
    """
    store, key = _store_and_key(path)
    try:
        found = store.read(key, byte_range=slice(begin, end)).result()
    except ValueError as error:
        failure = _as_of_a_disk(error, path)
        if failure.errno == errno.ENODATA:
            failure.strerror = f"it ends before byte {end}"
        raise failure from error
    if found.state != "value":
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
    return found.value


def _as_of_a_disk(error: ValueError, path: str) -> OSError:
    """TensorStore's error as an OSError with an errno, and the path as its file name."""
    reason = str(error).split("\n")[0]
    code = _ERRNOS.get(reason.partition(":")[0], errno.EIO)
    return OSError(code, f"{os.strerror(code)} ({reason[:300]})", path)


def _store_and_key(path: str) -> tuple[Any, str]:
    if not in_bucket(path):
        return key_value_store("file", ""), os.path.abspath(path).lstrip("/")
    scheme, _, name = path.partition("://")
    bucket, _, key = name.partition("/")
    return key_value_store(scheme, bucket), key


@functools.cache
def key_value_store(kind: str, bucket: str) -> Any:
    """TensorStore's store of a bucket; of this machine's files where the kind is "file"."""
    import tensorstore as ts

    spec: dict[str, Any] = {"driver": kind, "path": "/"}
    if kind != "file":
        driver = {"gs": "gcs", "s3": "s3"}[kind]
        spec = {"driver": driver, "bucket": bucket, f"{driver}_request_retries": _RETRIES}
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    if kind == "s3" and endpoint:  # s3fs reads the variable by itself
        spec |= {"endpoint": endpoint, "aws_region": os.environ.get("AWS_REGION", "us-east-1")}
    return ts.KvStore.open(spec).result()
