"""For how long requests to a storage that fails are repeated, by a clock that no test waits for."""

import asyncio
import contextlib
import selectors
import threading
import types

import aiohttp
import numpy as np
import pytest
from gcsfs.core import GCSFileSystem
from gcsfs.credentials import GoogleCredentials

from switch_jax.storage import cloud_storage
from switch_jax.storage.cloud_storage import CloudStorage
from switch_jax.storage.retries import PATIENCE, Retries


class Loop(asyncio.SelectorEventLoop):
    """An event loop whose time passes at once, as soon as there is nothing else to do."""

    def __init__(self):
        super().__init__(_Selector(self))
        self.now = 0.0

    def time(self):
        return self.now


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop):
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        events = super().select(0 if timeout is not None else None)
        if not events:
            self._loop.now += timeout
        return events


async def silent(files):
    await asyncio.sleep(files.requests_timeout.sock_read)
    raise aiohttp.ServerTimeoutError


async def refusing(files):
    raise aiohttp.ClientConnectionError


async def slow_to_refuse(files):
    """As where looking up the host's name fails after a while, which has no timeout."""
    await asyncio.sleep(8.0)
    raise aiohttp.ClientConnectionError


async def stuck(files):
    await asyncio.sleep(1e6)


async def absent(files):
    raise FileNotFoundError


async def answering(files):
    return 200, {}, None, b""


class Process:
    """A process that has made no request yet, and its time in seconds."""

    def __init__(self):
        self.loop = Loop()
        self.retries = Retries(self.loop.time)
        self.requests = []  # when each was made

    async def ask(self, server, method="GET", files=None):
        """Makes a request; returns its error, None if it was answered."""
        files = files or CloudStorage(token="anon", asynchronous=True)
        try:
            await files._request(method, "", server=server)
        except OSError as error:
            return error

    def run(self, coroutine):
        """Returns the seconds that it took."""
        began = self.loop.now
        self.loop.run_until_complete(coroutine)
        return self.loop.now - began


@pytest.fixture
def process(monkeypatch):
    process = Process()

    async def session(files):
        return types.SimpleNamespace()

    async def request(files, method, path, server):
        await files._set_session()
        process.requests.append(process.loop.now)
        return await server(files)

    monkeypatch.setattr(GCSFileSystem, "_set_session", session)
    monkeypatch.setattr(cloud_storage, "_request", request)
    monkeypatch.setattr(cloud_storage, "RETRIES", process.retries)
    with contextlib.closing(process.loop):
        yield process


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("server", [silent, refusing, slow_to_refuse, stuck])
def test_a_command_that_never_reaches_the_storage_ends_after_20_seconds(process, server, method):
    async def command():
        for _ in range(4):  # what failed is looked for elsewhere, and then written down
            assert isinstance(await process.ask(server, method), OSError)
        await asyncio.gather(*(process.ask(server, method) for _ in range(16)))

    assert 10 < process.run(command()) <= 20
    assert len(process.requests) > 1, "it is made again"


@pytest.mark.parametrize("pause", [0.5, 3.0, 9.5])
def test_requests_at_the_same_time_share_the_20_seconds(process, pause):
    async def later(i):
        await asyncio.sleep(i * pause)
        assert isinstance(await process.ask((silent, refusing)[i % 2]), OSError)

    async def command():
        await asyncio.gather(*map(later, range(3)))

    assert process.run(command()) <= 20


def test_services_that_give_no_credentials_count_as_the_storage(process, monkeypatch):
    released = threading.Event()

    def connect(credentials, method=None):
        if method != "anon":
            assert threading.current_thread() is not threading.main_thread()
            released.wait()

    monkeypatch.setattr(GoogleCredentials, "connect", connect)
    asking = process.ask(answering, files=CloudStorage(asynchronous=True, skip_instance_cache=True))
    assert 10 < process.run(asking) <= 20
    assert process.requests == []
    released.set()


def test_after_an_answer_requests_are_repeated_for_ten_minutes_in_all(process):
    async def command():
        await process.ask(absent)
        for server in (silent, refusing, silent):
            assert isinstance(await process.ask(server), OSError)

    assert PATIENCE - 5 <= process.run(command()) <= PATIENCE
    waits = np.diff(process.requests[1:])
    assert waits.max() <= 30 + 32, "a silence, and a wait"


def test_a_request_that_alone_fails_has_ten_minutes_too(process):
    """As one for an object that was written too often, while others go on."""

    async def others():
        while True:
            await process.ask(answering)
            await asyncio.sleep(1)

    async def command():
        others_go_on = asyncio.create_task(others())
        error = await process.ask(refusing)
        others_go_on.cancel()
        assert isinstance(error, OSError)
        assert await process.ask(answering) is None, "the storage was not given up"

    assert PATIENCE - 5 <= process.run(command()) <= PATIENCE


def test_what_was_read_for_long_and_then_cut_off_is_read_again(process):
    async def cut_off(files):
        if len(process.requests) > 2:
            return await answering(files)
        await asyncio.sleep(2 * PATIENCE)
        raise aiohttp.ClientPayloadError

    async def command():
        await process.ask(answering)
        assert await process.ask(cut_off) is None

    process.run(command())


def test_a_storage_that_was_given_up_is_asked_again_later(process):
    async def command():
        await process.ask(refusing)
        made = len(process.requests)
        assert "ClientConnectionError" in str(await process.ask(answering)), "the reason, again"
        assert len(process.requests) == made
        await asyncio.sleep(10)
        assert await process.ask(answering) is None

    process.run(command())


@pytest.mark.parametrize("patience", [20, PATIENCE])
def test_waits_grow_until_the_patience_ends(patience):
    now, waits = 0.0, []
    retries = Retries(lambda: now)
    if patience == PATIENCE:
        retries.answered()
    retries.failed("no answer", 0.0)
    for wait in retries.waiting_times():
        waits.append(wait)
        now += wait
    assert patience - 5 == pytest.approx(sum(waits)), "the last try has five seconds"
    limits = [1, 2, 4, 8, 16, *[32] * len(waits)]
    assert all(wait <= limit for wait, limit in zip(waits, limits, strict=False))
    assert all(wait >= limit / 2 for wait, limit in zip(waits[:-1], limits, strict=False))
