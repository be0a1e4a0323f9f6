"""The client of Cloud Storage: gcsfs, which here raises OSErrors and repeats failed requests."""

import asyncio
import errno
import http.client
import inspect
import re
import threading
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import aiohttp
import google.auth.exceptions
import requests
from fsspec import asyn
from gcsfs.core import GCSFileSystem  # without a request for the kind of each bucket
from gcsfs.credentials import LOCAL_REFRESH_BUFFER
from gcsfs.retry import ChecksumError, HttpError, is_retriable

from switch_jax.storage import clients, retries
from switch_jax.storage.locking.lease import check_leases, needs_check
from switch_jax.storage.retries import RETRIES

_AT_ONCE = 16  # requests
_SLOWEST = 100_000  # bytes a second: a request that is sent more slowly is given up

# One request, without gcsfs's own tries: they are silent, and end after half a minute.
_request = inspect.unwrap(GCSFileSystem._request)


class CloudStorage(GCSFileSystem):
    """The file system of gs:// for fsspec, and so for etils, Orbax and TFDS."""

    def __init__(self, *args: Any, token: Any = None, **options: Any) -> None:
        super().__init__(*args, token="anon", **options)  # the first request looks for credentials
        self._token, self._has_looked, self._looking = token, token == "anon", threading.Lock()

    async def _set_session(self) -> aiohttp.ClientSession:
        session = await super()._set_session()
        session._retry_connection = False  # repeats at once what may have been done, and is silent
        seconds = _limit()
        self.requests_timeout = aiohttp.ClientTimeout(sock_connect=seconds, sock_read=seconds)
        return session

    async def _request(self, method: str, path: str, *args: Any, **options: Any) -> Any:
        """Makes a request, and repeats it for minutes where the service or the network fails.

        Raises PermissionError (also without credentials), FileNotFoundError, FileExistsError where
        a condition does not hold, and OSError where there was no answer in time. All but the one
        of a condition have the URL of what was asked for as their file name.
        """
        url = _url(self._format_path(path, args), options)
        if reason := RETRIES.just_gave_up():
            raise _no_answer(reason, url)
        waits, reason = RETRIES.waiting_times(), "no whole answer yet"
        is_write = method.upper() != "GET"
        sending = len(options.get("data") or b"") / _SLOWEST  # seconds
        loop = asyncio.get_running_loop()
        line = loop.call_later(
            retries.SILENCE + sending, lambda: RETRIES.late(f"Cloud Storage: {reason}")
        )
        try:
            while True:
                # A write on a condition needs no lease; a lease itself is written so.
                if is_write and "ifGenerationMatch" not in options and needs_check():
                    await asyncio.to_thread(check_leases)
                began, limit = loop.time(), _limit() + sending
                try:
                    request = self._request_once(method, path, *args, **options)
                    # What is read may be large, but not before there was any answer.
                    is_cut = is_write or not RETRIES.reached
                    answer = await asyncio.wait_for(request, limit if is_cut else None)
                    RETRIES.answered()
                    return answer
                except Exception as error:
                    reason, known = _text(error), _as_os_error(error, url)
                    if method.upper() == "DELETE" and isinstance(known, FileNotFoundError):
                        RETRIES.answered()
                        return 204, {}, None, b""  # perhaps by an earlier try
                    if not _may_pass(error):
                        if isinstance(error, OSError | HttpError):
                            RETRIES.answered()
                        raise known from None  # it says more than `error`
                    RETRIES.failed(reason, min(loop.time() - began, limit))
                    wait = next(waits, None)
                    if wait is None:
                        raise _no_answer(reason, url) from None
                    RETRIES.repeated += 1
                    await asyncio.sleep(wait)
        finally:
            line.cancel()

    async def _request_once(self, *args: Any, **options: Any) -> Any:
        given, is_valid = self.credentials.credentials, self.credentials._credentials_valid
        if not self._has_looked or (given and not is_valid(LOCAL_REFRESH_BUFFER)):
            await asyncio.wait_for(_in_thread(self._get_credentials), _limit())
        return await _request(self, *args, **options)

    def _get_credentials(self) -> None:
        """Finds or renews credentials; the services that give them may not answer either."""
        with self._looking:
            if not self._has_looked:
                self.credentials.connect(self._token)
                self._has_looked = True
        self.credentials.maybe_refresh()

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


async def _in_thread(call: Callable[[], object]) -> None:
    """Calls a function in a thread that does not keep the process from ending."""
    done: Future[object] = Future()
    done.set_running_or_notify_cancel()

    def run() -> None:
        try:
            done.set_result(call())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=run, name="credentials", daemon=True).start()
    await asyncio.wrap_future(done)


def _limit() -> float:
    """Returns after how many seconds without a byte to give up, fewer before any answer."""
    seconds = clients.SILENT_SECONDS / (1 if RETRIES.reached else 3)
    return min(seconds, max(1.0, RETRIES.seconds_left()))


def _no_answer(reason: str, url: str) -> OSError:
    return OSError(errno.EIO, f"Cloud Storage: {reason}", url)


def _may_pass(error: Exception) -> bool:
    of_the_network = TimeoutError | aiohttp.ClientError | google.auth.exceptions.TransportError
    return is_retriable(error) or isinstance(error, ChecksumError | of_the_network)


def _url(request: str, options: Mapping[str, Any]) -> str:
    """Returns gs://BUCKET/NAME for the URL of a request; of a listing, its prefix is the name."""
    parts = urllib.parse.urlsplit(request)
    options = {**dict(urllib.parse.parse_qsl(parts.query)), **options}
    found = re.search(r"/b/([^/]+)(?:/o/([^/]+))?", parts.path)
    bucket, name = found.groups() if found else ("", None)
    name = urllib.parse.unquote(name or "") or options.get("prefix") or options.get("name") or ""
    return f"gs://{bucket}/{name}"


def _as_os_error(error: Exception, url: str) -> Exception:
    """Returns the OSError that a disk would raise."""
    code = getattr(error, "code", None)
    if isinstance(error, FileNotFoundError) or code == 404:
        return FileNotFoundError(errno.ENOENT, "there is no such bucket, folder or object", url)
    of_credentials = isinstance(error, google.auth.exceptions.GoogleAuthError)
    if of_credentials or code == 401 or _is_forbidden(error):
        return PermissionError(errno.EACCES, _text(error), url)
    return error if isinstance(error, OSError) else OSError(errno.EPROTO, _text(error), url)


def _is_forbidden(error: Exception) -> bool:
    return isinstance(error, OSError) and str(error).startswith("Forbidden: ")


def _text(error: Exception) -> str:
    """Returns the error's message in one line, after the status if there was an answer."""
    if isinstance(error, TimeoutError):
        return "no answer"
    if isinstance(error, requests.exceptions.ProxyError):
        return "502 Bad Gateway"
    text = str(error)
    if _is_forbidden(error):  # the first line is a part of the request's URL
        text = "403 Forbidden: " + text.partition("\n")[2]
    elif isinstance(error, HttpError) and error.code:
        status = f"{error.code} {http.client.responses.get(error.code, '')}"
        text = f"{status}: {text.removesuffix(f', {error.code}')}"
    return " ".join(text.split()).removesuffix(":")[:300] or type(error).__name__
