"""The proxy passes requests on, and makes the faults that it is told to."""

import http.client
import time
import urllib.error
import urllib.request

import pytest

from tests.storage import gcs_server, slow_proxy
from tests.storage.slow_proxy import Faults


@pytest.fixture(scope="module")
def proxy():
    with gcs_server.serve() as url, slow_proxy.serve(url) as found:
        write(found, b"0123456789")
        yield found


def write(proxy, content):
    url = f"{proxy.url}/upload/storage/v1/b/bucket/o?uploadType=media&name=digits"
    with urllib.request.urlopen(urllib.request.Request(url, content)) as answer:
        return answer.read()


def read(proxy, **headers):
    url = f"{proxy.url}/storage/v1/b/bucket/o/digits?alt=media"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
        return answer.read()


def test_without_faults_answers_are_those_of_the_server(proxy):
    proxy.faults = Faults(delay=0.1, late=1, late_delay=0.1)
    start, requests, sent = time.monotonic(), len(proxy.requests), proxy.bytes_sent
    assert read(proxy) == b"0123456789"
    assert read(proxy, Range="bytes=2-4") == b"234"
    assert time.monotonic() - start >= 0.4
    assert len(proxy.requests) - requests == 2 and proxy.bytes_sent - sent == 13
    assert proxy.requests[-1].startswith("GET /storage/v1/b/bucket/o/digits?")
    links = write(proxy, b"0123456789")
    assert proxy.url.encode() in links and proxy.upstream.encode() not in links


def test_refused_and_cut_requests(proxy):
    proxy.faults = Faults(refused=1, statuses=(429,))
    with pytest.raises(urllib.error.HTTPError, match="429"):
        read(proxy)
    proxy.faults = Faults(cut=1)
    for _ in range(4):  # before it begins, or in the middle
        with pytest.raises(http.client.HTTPException):
            read(proxy)
    proxy.faults = Faults(cut=1, of="^DELETE ")
    assert read(proxy) == b"0123456789"
