"""Answers of Cloud Storage that are lost, or never come: what was wanted is done all the same."""

import errno
import itertools
import os
import socket
import subprocess
import sys

import google.auth.exceptions
import pytest
from gcsfs.credentials import GoogleCredentials
from gcsfs.retry import validate_response

from switch_jax.storage import (
    RETRIES,
    appended_file,
    atomic_write,
    check_writable,
    clients,
    cloud_storage,
    exists,
    list_names,
    move_folder,
    open_atomic,
    read_bytes,
    read_range,
    repeated_requests,
    retries,
)
from switch_jax.utils.errors import TransientError
from tests.storage.slow_proxy import Faults
from tests.waiting import HANGS


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """Nothing waits before it is repeated."""
    monkeypatch.setattr(type(RETRIES), "waiting_times", lambda self: iter([0.0] * 100))


def _write_large(folder):
    with open_atomic(folder / "large") as file:
        file.write(b"0123456789" * 600_000)
    assert (folder / "large").stat().length == 6_000_000


def _move(folder):
    move_folder(folder / "a", folder / "b")
    assert list_names(folder) == ["b"] and read_bytes(folder / "b" / "x") == b"x"


def _append(folder):
    file = appended_file(folder / "a" / "x")
    file.append(b"y")
    file.append(b"z")
    assert read_bytes(folder / "a" / "x") == b"xyz"


REQUESTS = {
    "a removal": ("^DELETE ", lambda folder: (folder / "a" / "x").unlink()),
    "removals": ("^DELETE ", lambda folder: (folder / "a").rmtree()),
    "a listing": ("^GET .*delimiter=", lambda folder: list_names(folder / "a")),
    "reading": ("^GET .*alt=media", lambda folder: read_bytes(folder / "a" / "x")),
    "writing": ("^POST .*=multipart", lambda folder: atomic_write(folder / "y", "y")),
    "a part of an upload": ("^POST .*upload_id=", _write_large),
    "the start of an upload": ("^POST .*=resumable", _write_large),
    "writing on a condition": ("^POST .*ifGenerationMatch", _append),
    "a move": ("^POST .*/moveTo/", _move),
    "a copy": ("^POST .*/rewriteTo/", _move),
    "a removal after a copy": ("^DELETE ", _move),
}


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        *itertools.product(REQUESTS, ("lost", "cut")),
        *itertools.product(("reading", "a move"), ("silent",)),
    ],
)
def test_what_was_done_counts_though_its_answer_was_lost(
    faulty_storage, bucket_path, monkeypatch, name, fault
):
    faulty_storage.moves = "copy" not in name
    (bucket_path / "a" / "x").write_text("x")
    pattern, act = REQUESTS[name]
    faults, repeated = faulty_storage.num_faults, repeated_requests()
    faulty_storage.faults = Faults([fault], of=pattern)
    if fault == "silent":
        monkeypatch.setattr(clients, "SILENT_SECONDS", 0.5)
    act(bucket_path)
    assert faulty_storage.num_faults == faults + 1
    repetitions = repeated_requests() - repeated
    # Where little time is given, a slow machine may need more of them.
    assert repetitions == 1 or (repetitions > 1 and fault == "silent"), "none is silent"
    if "removal" in name:
        assert not exists(bucket_path / "a" / "x")


def test_credentials_that_the_network_does_not_bring_may_come_later(bucket_path, monkeypatch):
    def fail_once(*args):
        failing.undo()
        raise google.auth.exceptions.TransportError("no route to the metadata server")

    with monkeypatch.context() as failing:
        failing.setattr(GoogleCredentials, "apply", fail_once)
        assert list_names(bucket_path) == []


def test_repeated_requests_of_both_clients_are_counted(bucket_path, faulty_storage):
    file = bucket_path / "x.txt"
    file.write_bytes(b"0123456789")
    for ask in (lambda: read_range(str(file), 0, 5), lambda: read_bytes(file)):
        before = repeated_requests()
        faulty_storage.faults = Faults([503, None, None, 503, 503])
        for _ in range(3):
            ask()
        assert repeated_requests() - before == 3


def test_a_bucket_that_never_answers_is_a_line_and_then_an_error_that_may_pass(
    faulty_storage, bucket_path, monkeypatch, capsys
):
    monkeypatch.setattr(type(RETRIES), "waiting_times", lambda self: iter([0.0]))
    monkeypatch.setattr(RETRIES, "_line_since", None)  # whatever tests before this one have seen
    faulty_storage.faults = Faults(itertools.repeat("silent"))
    repeated = repeated_requests()
    with monkeypatch.context() as impatient:
        impatient.setattr(clients, "SILENT_SECONDS", 0.3)
        impatient.setattr(retries, "SILENCE", 0.1)
        with pytest.raises(TransientError, match="MODEL_DIR .*Cloud Storage: no answer.* start ag"):
            check_writable(bucket_path, "MODEL_DIR")
        assert repeated_requests() == repeated + 1
        with pytest.raises(TransientError):
            exists(bucket_path)
    said = capsys.readouterr().err
    assert said.count("what fails is tried again, for ") == 1, "of both once"
    assert said.startswith("Cloud Storage: no whole answer yet; what fails is tried again, for ")
    faulty_storage.faults = Faults()
    exists(bucket_path)
    assert "the storage has answered, after " in capsys.readouterr().err


def test_an_upload_that_nobody_reads_ends(monkeypatch):
    """The system takes some megabytes of it, and then no more."""
    monkeypatch.setattr(clients, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(cloud_storage, "_SLOWEST", 1e9)
    monkeypatch.setattr(type(RETRIES), "waiting_times", lambda self: iter([0.0]))
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        files = cloud_storage.CloudStorage(endpoint_url=url, token="anon")
        with pytest.raises(OSError, match="Cloud Storage: no answer") as error:
            files.pipe_file("bucket/x", bytes(30_000_000))
    assert error.value.errno == errno.EIO


@pytest.mark.parametrize(
    ("ask", "url"),
    [
        (lambda files: files.cat_file("mine/a b/x"), "gs://mine/a b/x"),
        (lambda files: files.info("mine/a/x"), "gs://mine/a/x"),
        (lambda files: files.ls("mine/a"), "gs://mine/a/"),
        (lambda files: files.rm_file("mine/a/x"), "gs://mine/a/x"),
        (lambda files: files.pipe_file("mine/a/x", b"x"), "gs://mine/"),
        (lambda files: files.pipe_file("mine/a/x", b"x", chunksize=1), "gs://mine/a/x"),
        (lambda files: files.ls(""), "gs:///"),
    ],
)
@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (401, b"{}", "401 Unauthorized: {}"),
        (403, b"", "403 Forbidden"),
        (403, b'{"error": {"code": 403, "message": "of a\\nrole"}}', "403 Forbidden: of a role"),
        (401, b'{"error": {"code": 401, "message": "no\\nname"}}', "401 Unauthorized: no name"),
    ],
)
def test_a_refusal_names_the_object_and_the_status(monkeypatch, ask, url, status, content, words):
    async def refused(files, method, path, *args, **options):
        validate_response(status, content, path, args)

    monkeypatch.setattr(cloud_storage, "_request", refused)
    files = cloud_storage.CloudStorage(
        endpoint_url="http://127.0.0.1:1", token="anon", project="mine"
    )
    with pytest.raises(PermissionError) as error:
        ask(files)
    assert str(error.value) == f"[Errno {errno.EACCES}] {words}: '{url}'"
    assert error.value.__cause__ is None, "no other text is taken for the reason"


READ = """
import sys
from switch_jax.storage import clients, read_range
clients.SILENT_SECONDS = 1
clients.choose_clients()
print(read_range(sys.argv[1], 0, 1))
"""


def test_tensorstore_makes_a_request_again_that_gets_no_answer(faulty_storage, bucket_path):
    (bucket_path / "x").write_text("x")
    faulty_storage.faults = Faults(["silent"], of="^GET ")
    command = [sys.executable, "-c", READ, f"{bucket_path}/x"]
    environment = {name: value for name, value in os.environ.items() if "_CURL_" not in name}
    ended = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, timeout=HANGS, env=environment
    )
    assert ended.stdout == "b'x'\n"


def test_what_fails_is_told_by_the_error_alone(faulty_storage, bucket_path, caplog):
    """fsspec reads ahead in the background, and logs what fails there with its trace."""
    (bucket_path / "x").write_bytes(b"0" * 100)
    faulty_storage.faults = Faults(itertools.repeat(403), of="alt=media")
    with pytest.raises(PermissionError):
        (bucket_path / "x").read_text()
    assert not [record for record in caplog.records if record.name.startswith(("fsspec", "gcsfs"))]
