"""The whole command: what it prints, its defaults, and on two launched processes."""

import types
from unittest.mock import Mock

import jax
import pytest

from switch_jax.cli import doctor, main
from switch_jax.doctor import all_checks
from switch_jax.doctor.checks import Failed, Skipped
from switch_jax.runtime import multihost
from tests.trainer.worker_processes import TINY, finish, launch, output


@pytest.mark.parametrize("fails", [False, True])
def test_what_is_printed_and_the_exit_code(fails, monkeypatch, capsys):
    checks = {
        "sum": lambda: "2 is 2",
        "kernel": Mock(side_effect=Skipped("there is none")),
        "link": Mock(side_effect=[Failed("1 GB/s") if fails else "9 GB/s"]),
    }
    taken = []
    monkeypatch.setattr(all_checks, "all_checks", lambda *given: taken.append(given) or checks)
    flags = [f"--gin_file={TINY}", "--gin.MODEL_DIR=some/run", "--gin.MESH_MODEL=1"]
    assert main(["doctor", *flags]) == fails
    assert capsys.readouterr().out.splitlines() == [
        "mesh data x expert x model = 2 x 2 x 1 of cpu",
        "passed   sum: 2 is 2",
        "skipped  kernel: there is none",
        "failed   link: 1 GB/s" if fails else "passed   link: 9 GB/s",
        "1 of 2 checks failed" if fails else "2 checks passed",
    ]
    ((mesh, model_dir),) = taken
    assert mesh.size == 4 and str(model_dir).endswith("some/run")


def test_versions_that_differ_between_processes_fail(monkeypatch):
    assert f"jax {jax.__version__}, jaxlib " in all_checks.versions()
    monkeypatch.setattr(multihost, "gather", lambda own: [own, own | {"libtpu": "0.0.1"}])
    with pytest.raises(Failed, match="process 1 differs from process 0 .libtpu .* -> '0.0.1'"):
        all_checks.versions()


def test_the_default_on_accelerators_is_all_devices_of_each_slice(monkeypatch):
    devices = [types.SimpleNamespace(platform="tpu", slice_index=i // 4) for i in range(8)]
    monkeypatch.setattr(jax, "devices", lambda: devices)
    assert doctor._mesh_of_all_devices() == ["MESH_DATA=2", "MESH_EXPERT=4"]


@pytest.mark.slow
def test_every_check_passes_on_two_processes(tmp_path):
    folder = tmp_path / "run"
    run = ["launch", "--on=local", "--doctor", f"--gin_file={TINY}", f"--gin.MODEL_DIR={folder}"]
    assert finish(launch(1, folder, *run), folder) == [0], output(folder)
    assert " checks passed\n" in output(folder) and "failed" not in output(folder)
    assert [path.name for path in tmp_path.iterdir() if "_doctor_" in path.name] == []
