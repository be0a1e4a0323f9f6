"""Secrets in the container: a local server plays the metadata server and Secret Manager."""

import base64
import http.server
import json
import subprocess
import sys
import threading

import pytest

from tests.waiting import HANGS

TOKEN = "/computeMetadata/v1/instance/service-accounts/default/token"
SECRETS = {"A_KEY": b"s3cret $x\n", "B_KEY": "ü\n\n".encode()}
RUN = """
import sys
from switch_jax.launch import with_secrets
with_secrets.METADATA = with_secrets.SECRET_MANAGER = sys.argv.pop(1)
with_secrets.main()
"""


class Cloud(http.server.BaseHTTPRequestHandler):
    """Answers as docs.cloud.google.com describes both, in the forms of their REST interfaces."""

    def do_GET(self):
        if self.path == TOKEN and self.headers["Metadata-Flavor"] == "Google":
            return self._answer(200, {"access_token": "t0ken", "token_type": "Bearer"})
        assert self.headers["Authorization"] == "Bearer t0ken"
        for name, value in SECRETS.items():
            if self.path == f"/v1/projects/my-project/secrets/{name}/versions/latest:access":
                data = base64.b64encode(value).decode()
                return self._answer(200, {"name": self.path, "payload": {"data": data}})
        if "BUSY" in self.path:
            return self._answer(503, {"error": {"message": "try later"}})
        self._answer(404, {"error": {"code": 404, "message": "no such secret"}})

    def _answer(self, code, body):
        self.send_response(code)
        self.end_headers()
        self.wfile.write(json.dumps(body, indent=2).encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def cloud():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Cloud) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(cloud, *names):
    command = ["bash", "-c", 'printf "<%s>" "$@" "$A_KEY" "$B_KEY"; exit 75', "bash", "--", "a b"]
    argv = [sys.executable, "-c", RUN, cloud, "my-project", *names, "--", *command]
    pipes = {"capture_output": True, "text": True}
    return subprocess.run(argv, timeout=HANGS, env={"PATH": "/bin"}, **pipes)


def test_the_command_has_the_secrets_and_its_own_exit_code(cloud):
    ended = run(cloud, "A_KEY", "B_KEY")
    assert (ended.returncode, ended.stdout, ended.stderr) == (75, "<--><a b><s3cret $x><ü>", "")


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [("NO_KEY", 2, '"message": "no such secret"'), ("BUSY_KEY", 1, '"message": "try later"')],
)
def test_without_a_secret_nothing_runs(cloud, name, code, reason):
    ended = run(cloud, "A_KEY", name)
    assert (ended.returncode, ended.stdout) == (code, "")
    (line,) = ended.stderr.splitlines()
    assert f"secrets/{name}/versions/latest:access: " in line and reason in line
    assert "s3cret" not in line and "t0ken" not in line


def test_without_a_metadata_server_nothing_runs():
    ended = run("http://127.0.0.1:9", "A_KEY")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("with_secrets: ") and len(ended.stderr.splitlines()) == 1
