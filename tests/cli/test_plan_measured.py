"""`plan --measured`: CPUs, and flags that do not go together."""

import dataclasses
import json
import re

import pytest

from switch_jax.cli import main
from switch_jax.planning import cpu_plan

TINY = ["--gin_file=tests/trainer/tiny.gin", "--gin.BATCH_SIZE=32"]


@pytest.fixture
def measured(tmp_path):
    """As doctor writes it, of 8 CPU devices whose attention takes twice as long as its memory."""
    step = {
        "seconds": 2.0,
        "flops_per_second": 1e9,
        "parts": {"attention": 2.0},
        "planned_parts": {"attention": 1.0},
        "planned_seconds": 2.0,
    }
    numbers = {
        "devices": {"devices": 8},
        "products": {"flops_per_second": 1e10},
        "memory": {"bytes_per_second": 1e9},
        "step": step,
    }
    checks = [{"name": name, "numbers": of} for name, of in numbers.items()]
    file = tmp_path / "doctor.json"
    file.write_text(json.dumps({"device_kind": "cpu", "checks": checks}))
    return f"--measured={file}"


def test_a_plan_of_cpus(measured, capsys):
    flags = ["--topology=cpu-8", "--mesh=2,4,1", measured]
    assert main(["plan", *TINY, *flags]) == 0
    table = capsys.readouterr().out
    assert "cpu-8: 8 devices of one machine" in table
    assert "by the ratios to the plan in " in table
    assert re.search(r"  attention +2.00\n  all parts +2.00\n", table)
    assert "attention  " in table and "experts  " in table and "exchanges  " in table


def test_changes_of_a_plan_that_does_not_fit_are_planned_with_the_same_file(
    measured, capsys, monkeypatch
):
    real, plans, files = cpu_plan.make_cpu_plan, [], []

    def make_cpu_plan(config, cpus, measured):
        files.append(measured and measured.file)
        if not plans:
            plans.append(real(config, cpus, measured))
        return dataclasses.replace(plans[0], hbm_limit_bytes=plans[0].hbm_bytes - 1)

    monkeypatch.setattr(cpu_plan, "make_cpu_plan", make_cpu_plan)
    assert main(["plan", *TINY, "--topology=cpu-8", "--mesh=2,4,1", measured]) == 3
    assert len(files) > 1 and f"--measured={files[0]}" == measured and len(set(files)) == 1


def test_cpus_are_planned_only_with_a_file_of_them(measured, capsys):
    assert main(["plan", *TINY, "--topology=cpu-8", "--mesh=2,4,1"]) == 2
    assert "--topology=cpu-8 needs --measured=FILE" in capsys.readouterr().err
    assert main(["plan", *TINY, "--topology=cpu-4", "--mesh=1,4,1", measured]) == 2
    assert "on 4 CPU devices; " in (message := capsys.readouterr().err)
    assert "doctor.json is of 8 x cpu" in message


def test_a_file_that_is_not_there_is_told_before_anything_is_compiled(capsys):
    assert main(["plan", *TINY, "--topology=v5p-8", "--measured=none.json"]) == 2
    assert "--measured=none.json cannot be read" in capsys.readouterr().err
