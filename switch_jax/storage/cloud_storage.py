"""The client of Cloud Storage: gcsfs, which here raises OSErrors and repeats failed requests."""

import asyncio
import errno
import inspect
from collections.abc import Sequence
from typing import Any

import aiohttp
import google.auth.exceptions
import requests
from fsspec import asyn
from gcsfs.core import GCSFileSystem  # without a request for the kind of each bucket
from gcsfs.retry import ChecksumError, is_retriable

from switch_jax.storage import clients, retries
from switch_jax.storage.locking.lease import check_leases, needs_check
from switch_jax.storage.retries import RETRIES

_AT_ONCE = 16  # requests
_SLOWEST = 100_000  # bytes a second: a request that is sent more slowly is given up

# One request, without gcsfs's own tries: they are silent, and end after half a minute.
_request = inspect.unwrap(GCSFileSystem._request)


class CloudStorage(GCSFileSystem):
    """The file system of gs:// for fsspec, and so for etils, Orbax and TFDS."""

    async def _set_session(self) -> aiohttp.ClientSession:
        session = await super()._set_session()
        session._retry_connection = False  # repeats at once what may have been done, and is silent
        seconds = _limit()
        self.requests_timeout = aiohttp.ClientTimeout(sock_connect=seconds, sock_read=seconds)
        return session

    async def _request(self, method: str, path: str, *args: Any, **options: Any) -> Any:
        """Makes a request, and repeats it for minutes where the service or the network fails.

        Raises PermissionError (also without credentials), FileNotFoundError, FileExistsError where
        a condition does not hold, and OSError where there was no answer in time.
        """
        waits, reason = RETRIES.waiting_times(), "no whole answer yet"
        is_write = method.upper() != "GET"
        sending = len(options.get("data") or b"") / _SLOWEST  # seconds
        line = asyncio.get_running_loop().call_later(
            retries.SILENCE + sending, lambda: RETRIES.late(f"Cloud Storage: {reason}")
        )
        try:
            while True:
                # A write on a condition needs no lease; a lease itself is written so.
                if is_write and "ifGenerationMatch" not in options and needs_check():
                    await asyncio.to_thread(check_leases)
                try:
                    request = _request(self, method, path, *args, **options)
                    answer = await asyncio.wait_for(
                        request, _limit() + sending if is_write else None
                    )
                    RETRIES.answered()
                    return answer
                except Exception as error:
                    reason, known = _text(error), _as_os_error(error)
                    if method.upper() == "DELETE" and isinstance(known, FileNotFoundError):
                        RETRIES.answered()
                        return 204, {}, None, b""  # perhaps by an earlier try
                    if not _may_pass(error):
                        raise known from error
                    wait = next(waits, None)
                    if wait is None:
                        raise OSError(errno.EIO, f"Cloud Storage: {reason}") from error
                    RETRIES.repeated += 1
                    await asyncio.sleep(wait)
        finally:
            line.cancel()

    async def _delete_files(self, files: Sequence[str], batchsize: int) -> list[Any]:
        """Removes files one by one, since gcsfs repeats a request for many in its own way."""
        removals = [self._rm_file(file) for file in files]
        return await asyn._run_coros_in_chunks(
            removals, batch_size=_AT_ONCE, return_exceptions=True
        )

    async def _mv_file(self, path1: str, path2: str, **options: Any) -> None:
        """Moves an object; where the target alone is there, an earlier try has moved it."""
        try:
            await super()._mv_file(path1, path2, **options)
        except FileNotFoundError:
            if not await self._exists(path2):
                raise

    async def _isdir(self, path: str) -> bool:
        """Says whether a folder is there; raises OSError where the storage does not answer."""
        try:
            return (await self._info(path))["type"] == "directory"
        except FileNotFoundError:
            return False

    def mkdir(self, path: str, *args: Any, **options: Any) -> None:
        """Does nothing: there are no folders, and to look at the bucket takes another right."""

    makedirs = mkdir


def _limit() -> float:
    """Returns after how many seconds without a byte to give up, fewer after a failed request."""
    return clients.SILENT_SECONDS / (1 if RETRIES.patience else 3)


def _may_pass(error: Exception) -> bool:
    of_the_network = TimeoutError | aiohttp.ClientError | google.auth.exceptions.TransportError
    return is_retriable(error) or isinstance(error, ChecksumError | of_the_network)


def _as_os_error(error: Exception) -> Exception:
    """Returns the OSError that a disk would raise."""
    code = getattr(error, "code", None)
    if isinstance(error, FileNotFoundError) or code == 404:
        return FileNotFoundError(errno.ENOENT, "there is no such bucket, folder or object")
    of_credentials = isinstance(error, google.auth.exceptions.GoogleAuthError)
    if of_credentials or code == 401 or str(error).startswith("Forbidden"):
        return PermissionError(errno.EACCES, _text(error))
    return error if isinstance(error, OSError) else OSError(errno.EPROTO, _text(error))


def _text(error: Exception) -> str:
    """Returns the error's message in one line."""
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, requests.exceptions.ProxyError):
        return "502 Bad Gateway"
    text = " ".join(str(error).split()) or type(error).__name__
    return text[:300]
