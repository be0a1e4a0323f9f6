"""The report as a page on this machine, which follows runs while they go on."""

import contextlib
import html
import threading
import zlib
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from etils import epath

from switch_jax.errors import UserError
from switch_jax.run_folder import RunFolder
from switch_jax.storage import entries

_POLL_SECONDS = 30  # of an open page; a report takes seconds of a core that a run may need
_RELOAD = """
<script>
setInterval(async () => {
  const now = await fetch("/version").then((answer) => answer.text(), () => "");
  if (now && now !== "VERSION") location.reload();
}, MILLISECONDS);
</script>
""".replace("MILLISECONDS", str(1000 * _POLL_SECONDS))


class ReportServer(ThreadingHTTPServer):
    """Answers / with the report, and /version with what changes when its runs do."""

    def __init__(
        self, port: int, runs: Sequence[str], page: epath.Path, write: Callable[[], list[str]]
    ) -> None:
        """Takes the port of this machine's own address, which other machines do not reach.

        Port 0 takes any that is free.
        `write` writes the file `page` from the files in the folders `runs` as they are, and returns
        lines for the terminal.

        Raises:
          UserError: the port cannot be taken.
        """
        if not 0 <= port < 2**16:
            raise UserError(f"--serve {port}: write a port from 1 to {2**16 - 1}")
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise UserError(
                f"--serve {port}: the port cannot be taken ({error.strerror}); write another, as "
                f"in --serve {port + 1 if port + 1 < 2**16 else 8000}"
            ) from error
        self._runs, self._page, self._write = runs, page, write
        self._lock = threading.Lock()
        self._written = ""  # the version of the file

    @property
    def url(self) -> str:
        """Where a browser finds the page."""
        return f"http://127.0.0.1:{self.server_port}/"

    def version(self) -> str:
        """Differs where the files of a run have changed."""
        seen: list[Any] = []
        for folder in map(RunFolder.at, self._runs):
            evaluation, lock = folder.evaluation, folder.lock.name  # which changes by itself
            for listed in (folder.path, evaluation.path, evaluation.expert_tokens):
                with contextlib.suppress(OSError):
                    found = entries(listed).items()
                    seen.append([(n, e) for n, e in found if e.kind != "folder" and n != lock])
        return f"{zlib.crc32(repr(seen).encode()):08x}"

    def current_page(self) -> tuple[int, bytes]:
        """The HTTP status, and the report; it is written anew where the runs have changed.

        Where it cannot be written the page says why, and reloads itself when they change again.
        """
        with self._lock:
            version, status = self.version(), 200
            try:
                if version != self._written or not self._page.exists():
                    self.write()
                    version = self._written
                page = self._page.read_bytes()
            except (UserError, OSError) as error:
                status, page = 500, f"<p>{html.escape(str(error))}</p>".encode(errors="replace")
            return status, page + _RELOAD.replace("VERSION", version).encode()

    def write(self) -> list[str]:
        """Writes the report; returns the lines for the terminal."""
        version = self.version()  # before: what comes meanwhile is of the next one
        lines = self._write()
        self._written = version
        return lines


class _Handler(BaseHTTPRequestHandler):
    server: ReportServer

    def handle(self) -> None:
        with contextlib.suppress(ConnectionError):  # the browser has left
            super().handle()

    def do_GET(self) -> None:
        if self.path == "/":
            kind = "text/html"
            status, content = self.server.current_page()
        elif self.path == "/version":
            kind = "text/plain"
            status, content = 200, self.server.version().encode()
        else:
            self.send_error(404)
            return
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing of each request."""
