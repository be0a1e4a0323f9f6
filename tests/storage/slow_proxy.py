"""A proxy before a storage server that is as slow and as faulty as a test wants it.

with gcs_server.serve() as url, slow_proxy.serve(url) as proxy:
    gcs_server.set_environment(proxy.url)
    proxy.faults = Faults(delay=0.03, refused=0.01)
"""

import contextlib
import http.client
import http.server
import random
import threading
import time
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass, field

_OF_A_CONNECTION = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True)
class Faults:
    """What happens to requests; probabilities are of each request.

    Attributes:
      delay: seconds that every request waits.
      late, late_delay: probability that it waits so many seconds more.
      refused: probability that it is answered by one of `statuses` and not passed on.
      cut: probability that the connection ends in the middle of the answer. The request is done.
    """

    delay: float = 0
    late: float = 0
    late_delay: float = 1
    refused: float = 0
    statuses: tuple[int, ...] = (503,)
    cut: float = 0


@dataclass
class SlowProxy:
    """What a test sees of a proxy, and may change at any time.

    Attributes:
      url: where clients find it.
      upstream: URL of the server.
      faults: of the requests from now on.
      requests: all so far, as "GET /path?query".
      bytes_sent: of all answers so far, without headers.
      num_faults: requests so far that were refused or cut.
    """

    url: str
    upstream: str
    faults: Faults = Faults()
    requests: list[str] = field(default_factory=list)
    bytes_sent: int = 0
    num_faults: int = 0
    chance: random.Random = field(default_factory=lambda: random.Random(0))


@contextlib.contextmanager
def serve(upstream: str) -> Iterator[SlowProxy]:
    """A proxy before a server, in threads of this process, without faults at first."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler, bind_and_activate=False)
    server.request_queue_size = 256
    server.server_bind()
    server.server_activate()
    proxy = SlowProxy(f"http://127.0.0.1:{server.server_port}", upstream)
    server.proxy = proxy  # type: ignore[attr-defined]  # for the handlers
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join()
        server.socket.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client, with one of its own to the server."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # headers and body leave together

    def setup(self) -> None:
        super().setup()
        self._proxy: SlowProxy = self.server.proxy  # type: ignore[attr-defined]
        address = urllib.parse.urlsplit(self._proxy.upstream).netloc
        self._upstream = http.client.HTTPConnection(address)

    def finish(self) -> None:
        self._upstream.close()
        with contextlib.suppress(OSError):
            super().finish()

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):
            super().handle()

    def _pass_on(self) -> None:
        body, proxy = self._body(), self._proxy
        faults, happens = proxy.faults, proxy.chance.random
        proxy.requests.append(f"{self.command} {self.path}")
        if delay := faults.delay + (faults.late_delay if happens() < faults.late else 0):
            time.sleep(delay)
        if happens() < faults.refused:
            proxy.num_faults += 1
            self._answer(proxy.chance.choice(faults.statuses), {}, b"{}")
            return
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_A_CONNECTION}
        self._upstream.request(self.command, self.path, body, headers)
        found = self._upstream.getresponse()
        answer = found.read()
        if found.headers.get_content_type() == "application/json":  # it may have links
            answer = answer.replace(proxy.upstream.encode(), proxy.url.encode())
        sent = {
            name: value.replace(proxy.upstream, proxy.url)
            for name, value in found.headers.items()
            if name.lower() not in _OF_A_CONNECTION
        }
        length = found.headers["Content-Length"] if self.command == "HEAD" else None
        # Cloud Storage answers again to the last part of an upload, fake-gcs-server does not.
        cut = "upload_id=" not in self.path and happens() < faults.cut
        self._answer(found.status, sent, answer, cut, length)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(
        self,
        status: int,
        headers: dict[str, str],
        body: bytes,
        cut: bool = False,
        length: str | None = None,
    ) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        body = body[: len(body) // 2] if cut else body
        self._proxy.num_faults += cut
        self._proxy.bytes_sent += len(body)
        self.wfile.write(body)
        self.wfile.flush()
        self.close_connection = self.close_connection or cut
