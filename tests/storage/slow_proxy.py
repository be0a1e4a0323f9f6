"""A proxy before a storage server that is as slow and as faulty as a test wants it.

with gcs_server.serve() as url, slow_proxy.serve(url) as proxy:
    os.environ.update(gcs_server.environment(proxy.url))
    proxy.faults = Faults([503, None, "cut"], of="^GET ", delay=0.03)
"""

import contextlib
import http.client
import http.server
import json
import random
import re
import threading
import time
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

_OF_A_CONNECTION = {"connection", "content-length", "host", "keep-alive", "transfer-encoding"}
_MOVE = re.compile(r"(/storage/v1/b/([^/]+)/o/[^/]+)/moveTo/o/([^/?]+)")

Answer = tuple[int, dict[str, str], bytes]  # status, headers, content


# A status that a request is answered by, and then it is not passed on. Else it is done, and the
# connection ends before the answer ("lost") or in the middle of it ("cut"), or no answer comes.
Fault = int | Literal["lost", "cut", "silent"]


@dataclass
class Faults:
    """What happens to requests. What a test finds does not depend on chance.

    Attributes:
      coming: the fault of each request in turn, None for none; there are none after the last.
      of: a regular expression of the requests, as "GET /path?query", that have these faults.
      delay: seconds that every request waits.
      late, late_delay: probability that it waits so many seconds more, for measurements.
    """

    coming: Iterable[Fault | None] = ()
    of: str = ""
    delay: float = 0
    late: float = 0
    late_delay: float = 1

    def __post_init__(self) -> None:
        self._next, self._lock = iter(self.coming), threading.Lock()
        self._chance = random.Random(0)

    def wait(self) -> None:
        """Until the request may go on."""
        if delay := self.delay + (self.late_delay if self._chance.random() < self.late else 0):
            time.sleep(delay)

    def of_request(self, request: str) -> Fault | None:
        """What happens to the request, which may come in any thread."""
        with self._lock:
            return next(self._next, None) if re.search(self.of, request) else None


@dataclass
class SlowProxy:
    """What a test sees of a proxy, and may change at any time.

    Attributes:
      url: where clients find it.
      upstream: URL of the server.
      faults: of the requests from now on.
      moves: whether a request can give an object another name; the server refuses that.
      requests: all so far, as "GET /path?query".
      bytes_sent: of all answers so far, without headers.
      uploads: answers to parts of uploads, by path and range: a part may be sent again.
      num_faults: requests so far that had a fault.
    """

    url: str
    upstream: str
    faults: Faults = field(default_factory=Faults)
    moves: bool = True
    requests: list[str] = field(default_factory=list)
    bytes_sent: int = 0
    num_faults: int = 0
    uploads: dict[tuple[str, str | None], Answer] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, request: str) -> Fault | None:
        """Notes a request; what happens to it."""
        fault = self.faults.of_request(request)
        with self._lock:
            self.requests.append(request)
            self.num_faults += fault is not None
        return fault


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
        body = self._body()
        fault = self._proxy.take(f"{self.command} {self.path}")
        self._proxy.faults.wait()
        if isinstance(fault, int):
            answer: Answer = (fault, {}, b"{}")
        else:
            answer = self._answer_of_cloud_storage(body)
        if fault == "silent":
            self.connection.recv(1)  # until the client has had enough
            self.close_connection = True
        else:
            self._answer(answer, fault)

    def _answer_of_cloud_storage(self, body: bytes) -> Answer:
        """The server's; where it does not do as Cloud Storage, Cloud Storage's."""
        if self._proxy.moves and (move := _MOVE.match(self.path)):
            source, bucket, target = move.groups()
            copied = self._ask("POST", f"{source}/copyTo/b/{bucket}/o/{target}", b"{}")
            if copied[0] == 200:
                self._ask("DELETE", source)
            return copied
        if "uploadType=media" in self.path and "ifGenerationMatch=" in self.path:
            # The server looks at a condition only where name and content are two parts.
            (name,) = urllib.parse.parse_qs(self.path.partition("?")[2])["name"]
            named = json.dumps({"name": name}).encode()
            body = b"--x\r\n\r\n" + named + b"\r\n--x\r\n\r\n" + body + b"\r\n--x--"
            path = self.path.replace("uploadType=media", "uploadType=multipart")
            return self._ask("POST", path, body, {"Content-Type": "multipart/related; boundary=x"})
        part = self.path, self.headers.get("Content-Range")
        if part in self._proxy.uploads:
            return self._proxy.uploads[part]
        headers = {k: v for k, v in self.headers.items() if k.lower() not in _OF_A_CONNECTION}
        answer = self._ask(self.command, self.path, body, headers)
        if "upload_id=" in self.path:
            self._proxy.uploads[part] = answer
        return answer

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Answer:
        proxy = self._proxy
        self._upstream.request(method, path, body, headers or {})
        found = self._upstream.getresponse()
        content = found.read()
        if found.headers.get_content_type() == "application/json":  # it may have links
            content = content.replace(proxy.upstream.encode(), proxy.url.encode())
        sent = {
            name: value.replace(proxy.upstream, proxy.url)
            for name, value in found.headers.items()
            if name.lower() not in _OF_A_CONNECTION
        }
        return found.status, sent, content

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass_on

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, answer: Answer, fault: Fault | None) -> None:
        status, headers, content = answer
        headers = {"Content-Length": str(len(content)), **headers}
        lines = [f"HTTP/1.1 {status} {self.responses[status][0]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        whole = "\r\n".join([*lines, "", ""]).encode("latin-1") + content
        if fault in ("lost", "cut"):
            whole = whole[: len(whole) // 2] if fault == "cut" else b""
            self.close_connection = True
        else:
            self._proxy.bytes_sent += len(content)
        self.wfile.write(whole)
        self.wfile.flush()
