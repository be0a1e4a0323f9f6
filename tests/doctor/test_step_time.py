"""The step of the tiny model: measured, and compared with plans by hand."""

import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.doctor import step_time
from switch_jax.doctor.checks import Verdict, run_checks
from switch_jax.doctor.speed import Machine
from switch_jax.hardware import parse_slice
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.planning.measured import Exchange, Speeds
from tests.trainer.helpers import tiny_config, tiny_model

CONFIG = tiny_config(tiny_model(group_size=8), mesh=MeshConfig(2, 4, 1))
PLAN = {
    "compute_seconds_model": 0.003,
    "estimated_cycles": 3000,
    "cycles_by_part": {"attention": 1000, "experts": 2000},
    "waiting_seconds_model": 0.001,
}


@pytest.fixture
def machine(monkeypatch):
    """Eight devices with speeds by hand."""
    monkeypatch.setattr(step_time, "_SECONDS", 0.01)
    mesh = make_mesh(CONFIG.mesh)
    machine = Machine(mesh)
    machine.flops_per_second = machine.bytes_per_second = 1e9
    speeds = Speeds(1e9, 1e9, {"all-to-all over expert": Exchange(1e9, 1e-6)})
    monkeypatch.setattr(Machine, "speeds", speeds)
    with jax.set_mesh(mesh):
        yield machine


def test_a_step_and_that_of_the_dense_model_by_part(machine):
    sparse, dense = run_checks(step_time.step_time_checks(CONFIG, "", machine))
    assert (sparse.verdict, dense.verdict) == (Verdict.OK, Verdict.OK), (sparse, dense)
    for finding, ffn in ((sparse, "experts"), (dense, "dense_ffn")):
        numbers = finding.numbers
        assert {ffn, "attention", "exchanges", "optimizer"} <= set(numbers["parts"])
        np.testing.assert_allclose(sum(numbers["parts"].values()), numbers["seconds"])
        assert set(numbers["parts"]) == set(numbers["planned_parts"])
        np.testing.assert_allclose(
            numbers["planned_seconds"], sum(numbers["planned_parts"].values())
        )
        assert numbers["tokens"] == 8 * (16 + 8)
    assert "router" in sparse.numbers["parts"] and "router" not in dense.numbers["parts"]
    assert sparse.numbers["parameters"] > dense.numbers["parameters"]
    assert "ms of it exchanges" in sparse.text


def test_a_config_that_no_dense_model_has(machine, monkeypatch):
    timed = step_time.Timed(0.5, {}, [], 1.0)
    monkeypatch.setattr(step_time, "measure_step", lambda *_: timed)
    config = CONFIG.replace("model", num_selected_experts=2)
    sparse, dense = run_checks(step_time.step_time_checks(config, "", machine))
    assert (sparse.verdict, dense.verdict) == (Verdict.OK, Verdict.SKIPPED)
    assert "macros that no dense model has" in dense.text


def test_a_quick_look_leaves_steps_out(machine):
    assert not list(run_checks(step_time.step_time_checks(CONFIG, "", machine), quick=True))


def test_a_batch_that_does_not_divide_is_refused_in_words(machine):
    config = CONFIG.replace("run", batch_size=12)
    first = next(run_checks(step_time.step_time_checks(config, "", machine)))
    assert first.verdict == Verdict.FAILED and "batch size 12 does not" in first.text


@pytest.mark.parametrize("shrink", [False, True])
def test_a_step_that_does_not_fit_in_memory(machine, monkeypatch, shrink):
    def measured(config, mesh):
        if config.run.batch_size > 16:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")
        return step_time.Timed(0.5, {}, [], 1.0)

    monkeypatch.setattr(step_time, "measure_step", measured)
    config = CONFIG.replace("run", batch_size=64)
    checks = step_time.step_time_checks(config, "", machine, shrink=shrink)
    first = next(run_checks(checks))
    if shrink:
        assert first.text.startswith("500 ms with BATCH_SIZE = 16, ")
        assert first.numbers["tokens"] == 16 * (16 + 8)
    else:
        assert first.text == "does not fit in the devices' memory with BATCH_SIZE = 64"
        assert first.verdict == Verdict.FAILED and "switch_jax plan" in first.advice


@pytest.fixture
def on_tpu(machine, monkeypatch):
    """As on four chips of v5p: the step takes 4 ms, or what is asked for."""
    monkeypatch.setattr(step_time, "slice_of", lambda devices: parse_slice("v5p:2x2x2"))
    machine.is_cpu = False
    calls = []

    def run(command, **options):
        calls.append(command)
        assert options["env"]["JAX_PLATFORMS"] == "cpu"
        file = next(word for word in command if word.startswith("--gin_file="))
        calls.append(Path(file.removeprefix("--gin_file=")).read_text())
        return subprocess.CompletedProcess(command, 0, json.dumps(PLAN), "")

    monkeypatch.setattr(step_time.subprocess, "run", run)

    def checked(attention):
        parts = {"attention": attention, "experts": 0.002, "exchanges": 0.001}
        timed = step_time.Timed(sum(parts.values()), parts, [], 30.0)
        monkeypatch.setattr(step_time, "measure_step", lambda *_: timed)
        return next(run_checks(step_time.step_time_checks(CONFIG, "NUM_EXPERTS = 8", machine)))

    checked.calls = calls
    return checked


def test_on_a_tpu_the_plan_is_that_of_the_compiler(on_tpu):
    finding = on_tpu(0.0012)
    assert finding.verdict == Verdict.OK and "1.05 times the plan's 4 ms" in finding.text
    assert finding.numbers["planned_parts"] == pytest.approx(
        {"attention": 0.001, "experts": 0.002, "exchanges": 0.001}
    )
    command, text = on_tpu.calls
    assert "--topology=v5p:2x2x2" in command and "--mesh=2,4,1" in command
    assert text == "NUM_EXPERTS = 8"


def test_a_step_far_from_its_plan_fails_and_names_the_part(on_tpu):
    finding = on_tpu(0.005)
    assert finding.verdict == Verdict.FAILED and "2.00 times the plan's 4 ms" in finding.text
    assert finding.advice.startswith("look at attention, which takes 5 ms in place of 1;")


def test_without_a_plan_the_measurement_stays(on_tpu, monkeypatch):
    failed = subprocess.CompletedProcess([], 2, "", "switch_jax plan: needs libtpu\n")
    monkeypatch.setattr(step_time.subprocess, "run", lambda *_, **options: failed)
    finding = on_tpu(0.005)
    assert finding.verdict == Verdict.OK and finding.numbers["seconds"] == pytest.approx(0.008)
    assert "no plan to compare with: switch_jax plan: needs libtpu" in finding.text


def test_where_a_trace_names_no_operation_there_are_no_parts(machine, monkeypatch):
    monkeypatch.setattr(step_time, "operation_seconds", lambda folder: {"kernel": 1.0})
    timed = step_time.measure_step(CONFIG, machine.mesh)
    assert timed.parts == {} and timed.seconds > 0


def test_random_rows_are_full():
    batch = step_time.random_batch(CONFIG)
    assert batch["encoder_input_tokens"].shape == (8, 16)
    assert (batch["encoder_segment_ids"] == 1).all() and (batch["decoder_loss_weights"] == 1).all()
    assert batch["decoder_target_tokens"].min() >= 2
    assert batch["decoder_target_tokens"].max() < CONFIG.model.num_embeddings
