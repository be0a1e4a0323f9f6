"""What is read from and written to S3, against moto's server of its protocol."""

import os
import uuid
from unittest import mock

import pytest

from switch_jax.run_folder import create_run_folder
from switch_jax.storage import (
    appended_file,
    atomic_write,
    file_sizes,
    is_file,
    list_names,
    local_copy,
    matching,
    new_folder,
    read_range,
    storage_path,
    writing,
)
from switch_jax.utils.errors import UserError


@pytest.fixture(scope="module")
def bucket():
    """The URL of a bucket in a server on this machine."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    variables = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": "tests",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    import s3fs

    with mock.patch.dict(os.environ, variables):
        s3fs.S3FileSystem().mkdir("bucket")
        yield "s3://bucket"
    server.stop()


@pytest.fixture
def folder(bucket):
    return storage_path(f"{bucket}/{uuid.uuid4().hex}")


def test_files_are_written_found_and_read(folder):
    for name in ("a.txt", "b.txt"):
        atomic_write(folder / "text" / name, f"text of {name}")
    assert list_names(folder / "text") == ["a.txt", "b.txt"]
    urls = matching(f"{folder}/text/*.txt")
    assert urls == [f"{folder}/text/a.txt", f"{folder}/text/b.txt"]
    assert file_sizes(urls) == [13, 13]
    assert read_range(urls[0], 5, 9) == b"of a"
    assert is_file(folder / "text" / "a.txt") and not is_file(folder / "text")
    with open(local_copy(urls[1])) as copy:
        assert copy.read() == "text of b.txt"
    with pytest.raises(FileNotFoundError):
        read_range(f"{folder}/absent", 0, 1)


def test_a_folder_is_whole_or_not_there(folder):
    with new_folder(folder / "new") as unfinished:
        (unfinished / "x").write_text("x")
        assert not (folder / "new").exists()
    assert list_names(folder) == ["new"] and list_names(folder / "new") == ["x"]
    with pytest.raises(UserError, match="is there already"), new_folder(folder / "two"):
        with new_folder(folder / "two") as first:
            (first / "y").write_text("y")
    assert list_names(folder / "two") == ["y"]
    assert writing._create(folder / "z") and not writing._create(folder / "z")


def test_a_run_there_is_refused(bucket):
    with pytest.raises(UserError, match="MODEL_DIR 's3://bucket/run': a run writes to a disk or"):
        create_run_folder(f"{bucket}/run")
    with pytest.raises(UserError, match="/run/log: what a run writes goes to a disk or to gs://BU"):
        appended_file(storage_path(f"{bucket}/run") / "log").append(b"x")
