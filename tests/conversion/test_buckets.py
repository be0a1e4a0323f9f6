"""Models of others and runs, all in a bucket: as on a disk."""

import signal
import subprocess
import sys
import time

import pytest
from safetensors.numpy import load

from switch_jax.cli import main
from switch_jax.storage import list_names
from tests.conversion.folders import REPOSITORY
from tests.storage.copies import copy_files
from tests.storage.slow_proxy import Faults


@pytest.fixture
def in_bucket(theirs, bucket_path):
    """A Hugging Face folder in a bucket."""
    return copy_files(theirs, bucket_path / "theirs")


def test_there_and_back_gives_the_same_files(theirs, in_bucket, bucket_path):
    ours, back = bucket_path / "run", bucket_path / "back"
    assert main(["convert", str(in_bucket), str(ours)]) == 0
    assert main(["convert", str(ours), str(back)]) == 0
    tensors = load((back / "model.safetensors").read_bytes())
    for name, tensor in load((theirs / "model.safetensors").read_bytes()).items():
        if name in tensors:
            assert (tensors[name] == tensor).all(), name
    assert {"config.json", "model.safetensors", "spiece.model"} <= set(list_names(back))
    assert list_names(bucket_path) == ["back", "run", "theirs"], "nothing unfinished is left"


def test_inspect_reads_headers_alone(theirs, in_bucket, capsys, faulty_storage):
    described = []
    for folder in (theirs, in_bucket):
        before = faulty_storage.bytes_sent
        assert main(["convert", "--inspect", str(folder)]) == 0
        described.append(capsys.readouterr().out)
    assert described[0] == described[1]
    size = (theirs / "model.safetensors").stat().st_size
    tokenizer = (theirs / "spiece.model").stat().st_size
    assert faulty_storage.bytes_sent - before < tokenizer + size / 5


@pytest.mark.parametrize("size", [99_999, 3, 0])
def test_damaged_tensors_are_named(in_bucket, bucket_path, capsys, size):
    file = in_bucket / "model.safetensors"
    file.write_bytes(file.read_bytes()[:size])
    assert main(["convert", str(in_bucket), str(bucket_path / "run")]) == 2
    assert f"{file} is not a whole safetensors file" in capsys.readouterr().err
    assert list_names(bucket_path) == ["theirs"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("storage", "moment"),
    [("disk", "written"), ("bucket", "written"), ("bucket", "moved")],
    indirect=["storage"],
)
def test_what_is_left_of_a_killed_conversion_is_no_model(
    theirs, storage, faulty_storage, moment, capsys
):
    """Killed once an object of the new folder, or of the target, is there."""
    target, command = storage / "run", [sys.executable, "-m", "switch_jax", "convert"]
    with subprocess.Popen([*command, str(theirs), str(target)], cwd=REPOSITORY) as process:
        while not (left := list_names(storage)) and process.poll() is None:
            time.sleep(0.005)
        faulty_storage.faults = Faults(delay=0.05)
        while moment == "moved" and not list_names(target) and process.poll() is None:
            time.sleep(0.005)
        process.kill()
    faulty_storage.faults = Faults()
    assert process.returncode == -signal.SIGKILL
    assert left[0].startswith(".run.unfinished-") and left[0] in list_names(storage)
    assert main(["convert", "--inspect", str(target)]) == 2
    printed = capsys.readouterr().err
    if moment == "moved":
        assert "run holds no model" in printed and len(list_names(target)) > 0
        assert main(["convert", str(theirs), str(target)]) == 2
        assert f"{left[0]} beside it is of a job that was killed" in capsys.readouterr().err
        target.rmtree()
    assert main(["convert", str(theirs), str(target)]) == 0
    assert main(["convert", "--inspect", str(target)]) == 0
