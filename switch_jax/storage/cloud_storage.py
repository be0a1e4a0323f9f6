"""Cloud Storage's client: gcsfs, with the errors of a disk, and patience with a busy service."""

import asyncio
import errno
import inspect
import json
import uuid
from collections.abc import Iterator
from typing import Any

import aiohttp
import google.auth.exceptions
import requests
from gcsfs.core import GCSFileSystem  # without a request for the kind of each bucket
from gcsfs.retry import ChecksumError, HttpError, is_retriable

from switch_jax.storage.lease import check_leases, needs_check
from switch_jax.storage.weather import WEATHER

_PAGE = 1000  # objects of a listing: Cloud Storage gives no more at once

# One request, without gcsfs's own tries: they are silent, and end after a minute.
_request = inspect.unwrap(GCSFileSystem._request)


class CloudStorage(GCSFileSystem):
    """The file system of gs:// for fsspec, and so for etils, Orbax and TFDS."""

    async def _request(self, method: str, path: str, *args: Any, **options: Any) -> Any:
        """A request; it is repeated for some minutes where the service or the network fails.

        Raises:
          PermissionError: there are no credentials, or they do not allow it.
          FileNotFoundError: there is no such bucket or object.
          FileExistsError: a condition does not hold.
          OSError: the service did not answer in time.
        """
        is_write = method.upper() != "GET"
        waits, is_repeated = WEATHER.waiting_times(), False
        while True:
            # A write on a condition needs no lease; a lease itself is written so.
            if is_write and "ifGenerationMatch" not in options and needs_check():
                await asyncio.to_thread(check_leases)
            try:
                answer = await _request(self, method, path, *args, **options)
                WEATHER.answered()
                return answer
            except Exception as error:
                if is_repeated and method.upper() == "DELETE" and _is_absent(error):
                    return 204, {}, None, b""  # the answer to an earlier try was lost
                if not _may_pass(error):
                    raise _as_of_a_disk(error) from error
                wait = next(waits, None)
                if wait is None:
                    raise OSError(errno.EIO, f"Cloud Storage: {_text(error)}") from error
                WEATHER.failed(f"Cloud Storage: {_text(error)}")
                await asyncio.sleep(wait)
                is_repeated = True

    def mkdir(self, path: str, *args: Any, **options: Any) -> None:
        """Does nothing: there are no folders, and to look at the bucket takes another right."""

    makedirs = mkdir

    def list_sizes(self, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
        """As `clients.object_sizes`; `find` asks for all fields of an object, and keeps them."""
        options = {
            "prefix": prefix,
            "maxResults": _PAGE,
            "fields": "items(name,size),nextPageToken",
        }
        while True:
            page = self.call("GET", "b/{}/o", bucket, json_out=True, **options)
            for found in page.get("items", ()):
                if not found["name"].endswith("/"):  # it stands for a folder
                    yield f"{bucket}/{found['name']}", int(found["size"])
            if "nextPageToken" not in page:
                return
            options["pageToken"] = page["nextPageToken"]

    def read_object(self, bucket: str, name: str) -> tuple[bytes | None, int]:
        """An object's content and its generation; None and 0 where it is not there."""
        try:
            headers, content = self.call("GET", "b/{}/o/{}", bucket, name, alt="media")
        except FileNotFoundError:
            return None, 0
        return content, int(headers["X-Goog-Generation"])

    def write_object(self, bucket: str, name: str, content: bytes, generation: int) -> int:
        """Writes an object that still has this generation, 0: is not there; returns the new one.

        Raises:
          FileExistsError: it has another.
          OSError: it cannot be written.
        """
        boundary = uuid.uuid4().hex
        parts = (
            ("application/json", json.dumps({"name": name}).encode()),
            ("application/octet-stream", content),
        )
        body = b"".join(
            f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + part + b"\r\n"
            for kind, part in parts
        )
        answer = self.call(
            "POST",
            f"{self._location}/upload/storage/v1/b/{bucket}/o",
            uploadType="multipart",
            ifGenerationMatch=str(generation),
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            data=body + f"--{boundary}--".encode(),
            json_out=True,
        )
        return int(answer["generation"])


def _may_pass(error: Exception) -> bool:
    return is_retriable(error) or isinstance(
        error, ChecksumError | asyncio.TimeoutError | aiohttp.ClientError
    )


def _is_absent(error: Exception) -> bool:
    return isinstance(error, FileNotFoundError) or getattr(error, "code", None) == 404


def _as_of_a_disk(error: Exception) -> Exception:
    if isinstance(error, OSError) and str(error).startswith("Forbidden"):
        return PermissionError(errno.EACCES, _text(error))
    if isinstance(error, HttpError | google.auth.exceptions.GoogleAuthError):
        denied = isinstance(error, google.auth.exceptions.GoogleAuthError) or error.code == 401
        kind, number = (PermissionError, errno.EACCES) if denied else (OSError, errno.EPROTO)
        return kind(number, _text(error))
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is no such bucket, folder or object")
    return error if isinstance(error, OSError) else OSError(errno.EPROTO, _text(error))


def _text(error: Exception) -> str:
    """The error in one line."""
    if isinstance(error, requests.exceptions.ProxyError):
        return "502 Bad Gateway"
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
