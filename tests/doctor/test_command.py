"""The whole command: what it prints and writes, its defaults, and on two launched processes."""

import json
import types

import jax
import pytest

from switch_jax import gin_config
from switch_jax.cli import doctor, main
from switch_jax.doctor import all_checks
from switch_jax.doctor.checks import Check, Finding, Verdict, run_checks
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.microbatches import check_batch
from tests.trainer.worker_processes import TINY, finish, launch, output

LEFT_OUT = "--quick has left out the time of a step: leave it out to know that, too\n"


@pytest.fixture
def two_checks(monkeypatch):
    """In place of all: one that is well, and one that takes long and fails."""
    link = Finding(Verdict.FAILED, "1 GB/s", {"bytes_per_second": 1e9}, "mend it")
    checks = [
        Check("sum", lambda: Finding(Verdict.OK, "2 is 2")),
        Check("link", lambda: link, is_long=True),
    ]
    monkeypatch.setattr(all_checks, "all_checks", lambda *_, shrink: iter(checks))


def test_what_is_printed_and_written(two_checks, capsys, tmp_path):
    flags = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={tmp_path / 'run'}"]
    file = tmp_path / "new" / "doctor.json"
    assert main(["doctor", *flags, f"--output={file}"]) == 1
    assert capsys.readouterr().out.splitlines() == [
        "ok       sum: 2 is 2",
        "failed   link: 1 GB/s; mend it",
        "1 of 2 checks failed",
        f"written: {file}, and as a page {file.with_suffix('.html')}",
    ]
    assert [check["verdict"] for check in json.loads(file.read_text())["checks"]] == [
        "ok",
        "failed",
    ]
    assert main(["doctor", *flags, "--quick"]) == 0
    assert capsys.readouterr().out == "ok       sum: 2 is 2\n1 check passed\n" + LEFT_OUT
    assert main(["doctor", *flags, "--output=doctor.txt"]) == 2
    assert "give a file that ends in .json" in capsys.readouterr().err


def test_checks_that_cannot_be_made_do_not_stop_the_others(monkeypatch):
    def unknown(mesh):
        yield Check("one", lambda: Finding(Verdict.OK, ""))
        raise ValueError("no such chip")

    for name in ("kernel_checks", "step_checks", "speed_checks", "step_time_checks"):
        monkeypatch.setattr(all_checks, name, lambda *_, **options: iter(()))
    for name in ("switch_layer", "checkpoint", "input_check"):
        monkeypatch.setattr(all_checks, name, lambda *_: Finding(Verdict.OK, ""))
    monkeypatch.setattr(all_checks, "installed_checks", unknown)
    config = gin_config.read([TINY], ["MODEL_DIR=run"], (), ()).config
    checks = all_checks.all_checks(config, "", make_mesh(config.mesh), shrink=False)
    found = [str(finding) for finding in run_checks(checks)]
    assert found == [
        "ok       one: ",
        "failed   installed: cannot be checked: ValueError: no such chip",
        "ok       Switch layer on the mesh: ",
        "ok       a checkpoint: ",
        "ok       input pipeline: ",
    ]


def test_a_teacher_is_refused(capsys):
    flags = [f"--gin_file={TINY}", "--gin_file=runs/distill.gin", "--gin.MODEL_DIR=run"]
    assert main(["doctor", *flags, "--gin.TEACHER_DIR=/nowhere"]) == 2
    assert "doctor measures steps without a teacher" in capsys.readouterr().err


@pytest.mark.slow
def test_every_check_passes_on_two_processes(tmp_path):
    folder = tmp_path / "run"
    run = ["launch", "--on=local", "--doctor", f"--gin_file={TINY}", f"--gin.MODEL_DIR={folder}"]
    assert finish(launch(1, folder, *run), folder, timeout=500) == [0], output(folder)
    checks = json.loads((tmp_path / "run_doctor.json").read_text())["checks"]
    assert {check["verdict"] for check in checks} <= {"ok", "skipped"}
    assert {"a checkpoint", "input pipeline", "step"} <= {check["name"] for check in checks}
    assert " checks passed\n" in output(folder)
    assert [path.name for path in tmp_path.iterdir() if "_doctor_" in path.name] == []


@pytest.mark.parametrize("devices, experts", [(8, 8), (3, 9), (1, 8), (16, 16)])
def test_the_default_on_accelerators_divides_over_any_number_of_devices(
    monkeypatch, devices, experts
):
    """Also with half the batch again and again, until each device has a row."""
    monkeypatch.setattr(jax, "devices", lambda: [types.SimpleNamespace(platform="tpu")] * devices)
    files = ["models/switch_base.gin", "runs/pretrain.gin"]
    macros = [*doctor._DEFAULTS, *doctor._switch_base_macros()]
    config = gin_config.read(files, macros, (), ()).config
    assert config.model.num_experts == experts
    shape = {"data": 1, "expert": devices, "model": 1}
    for rows in (16, 8, 4, 2, 1):
        check_batch(config.replace("run", batch_size=rows * devices), shape)
        check_batch(config.replace("model", num_experts=0), shape)
