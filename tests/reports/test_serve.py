"""The report that follows its runs, asked as a browser asks."""

import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest

from switch_jax.cli import main
from switch_jax.errors import UserError
from switch_jax.reports.serve import ReportServer
from tests.leaks import left_open


class Report:
    """Stands for the writing of the page; keeps how often it was asked to."""

    def __init__(self, folder):
        self.run, self.page = folder / "run", folder / "report.html"
        self.run.mkdir()
        self.metrics = self.run / "metrics.jsonl"
        self.written, self.problem = 0, None

    def __call__(self):
        if self.problem:
            raise UserError(self.problem)
        self.written += 1
        self.page.write_text(f"<h1>page {self.written}</h1>")
        return [f"line {self.written}"]


@pytest.fixture
def report(tmp_path):
    return Report(tmp_path)


@pytest.fixture
def server(report):
    with ReportServer(0, [str(report.run)], report.page, report) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(server, path=""):
    with urllib.request.urlopen(server.url + path, timeout=30) as answer:
        return answer.read().decode()


def test_the_report_is_written_again_only_where_a_run_has_changed(server, report):
    assert server.write() == ["line 1"]
    first = get(server)
    assert first.startswith("<h1>page 1</h1>") and get(server) == first
    (version,) = re.findall(r'now !== "(\w+)"', first)
    assert get(server, "version") == version
    report.metrics.write_text("{}\n")
    assert get(server, "version") != version, "so that an open page reloads itself"
    assert report.written == 1, "and nothing is written until it does"
    assert get(server).startswith("<h1>page 2</h1>")
    (report.run / "eval").mkdir()
    (report.run / "eval/metrics.jsonl").write_text("{}\n")
    assert get(server).startswith("<h1>page 3</h1>") and get(server).startswith("<h1>page 3</h1>")


def test_a_run_that_cannot_be_read_is_told_on_a_page_that_comes_back(server, report):
    report.problem = "no run folder <run>"
    with pytest.raises(urllib.error.HTTPError) as answer:
        get(server)
    page = answer.value.read().decode()
    assert (answer.value.code, answer.value.headers.get_content_type()) == (500, "text/html")
    assert page.startswith("<p>no run folder &lt;run&gt;</p>") and "location.reload()" in page
    assert f'now !== "{get(server, "version")}"' in page, "it waits for the runs to change"
    report.problem = None
    assert get(server).startswith("<h1>page 1</h1>")


def test_a_page_that_was_removed_is_written_again(server, report):
    assert get(server).startswith("<h1>page 1</h1>")
    report.page.unlink()
    assert get(server).startswith("<h1>page 2</h1>")


def test_a_run_that_ends_is_reported_again(server, report):
    before = get(server, "version")
    (report.run / "status.json").write_text('{"state": "finished"}')
    assert get(server, "version") != before


def test_a_browser_that_leaves_is_no_error(server, report, capfd):
    asked, left, ended = threading.Event(), threading.Event(), threading.Event()
    write, shutdown_request = server.write, server.shutdown_request

    def slow_write():
        asked.set()
        left.wait(30)
        return write()

    def last_of_a_request(request):
        shutdown_request(request)
        ended.set()

    server.write, server.shutdown_request = slow_write, last_of_a_request
    browser = socket.create_connection(server.server_address)
    browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # it resets
    browser.sendall(b"GET / HTTP/1.1\r\n\r\n")
    assert asked.wait(30)
    browser.close()
    left.set()
    assert ended.wait(30)
    assert capfd.readouterr().err == ""


def test_other_files_are_not_served_and_other_machines_not_answered(server):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(server, "../run/metrics.jsonl")
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_or_none_is_one_line(server, report):
    port = server.server_port
    message = rf"--serve {port}: the port cannot be taken \(Address .* use\); .* --serve {port + 1}"
    with pytest.raises(UserError, match=message):
        ReportServer(port, [], report.page, report)
    with pytest.raises(UserError, match="--serve 65536: write a port from 1 to 65535"):
        ReportServer(65536, [], report.page, report)


def test_a_run_right_after_the_flag_is_no_port(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["report", "--serve", "RUN"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith("'RUN' is no port: write --serve after the runs, or --serve=PORT")


def test_the_command_serves_until_ctrl_c_and_ends_with_0(make_run, tmp_path):
    run = make_run("run", num_experts=0, steps=200)
    # Ctrl-C does nothing to what a shell has put into the background, as it may have these tests.
    code = (
        "import signal, sys; from switch_jax.cli import main; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "report", str(run), "--serve", "0"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
    )  # fmt: skip
    try:
        lines = iter(process.stdout.readline, "")
        url = next(filter(None, (re.search(r"http://\S+", line) for line in lines)))[0]
        with urllib.request.urlopen(url, timeout=60) as answer:
            page = answer.read().decode()
        assert page.startswith((tmp_path / "report.html").read_text())
        assert "location.reload()" in page
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30)[0].strip() == "" and process.returncode == 0
    finally:
        process.kill()


def test_no_request_leaves_a_file_open_or_a_thread(server):
    files, threads = left_open(lambda: get(server), times=50)
    assert files < 10 and threads < 10
