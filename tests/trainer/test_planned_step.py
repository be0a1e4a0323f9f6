"""A run beside the file of --plan: what is read, what is said, and why."""

import json
import re
import time
import types

import pytest

from switch_jax.config import Config, DataConfig, MeshConfig, RunConfig
from switch_jax.errors import UserError
from switch_jax.metrics import Goodput
from switch_jax.model.flops import parameter_count
from switch_jax.reports.run_status import read_status
from switch_jax.reports.status_text import health
from switch_jax.trainer import planned_step
from switch_jax.trainer import train as train_module
from switch_jax.trainer.planned_step import PlannedStep, PlanWatch, read_planned_step
from tests.trainer import tiny_task  # noqa: F401  registers it
from tests.trainer.helpers import tiny_model

MODEL = tiny_model(num_embeddings=1152, num_encoder_layers=1, num_decoder_layers=1, sparse_step=1)
CONFIG = Config(
    RunConfig("run", train_steps=16, batch_size=8, eval_period=None, log_period=8),
    MODEL,
    DataConfig("tiny_copy", {"inputs": 32, "targets": 16}),
    MeshConfig(1, 4, 1),
)
MESH = {"data": 1, "expert": 4, "model": 1}
PARAMETERS, TOKENS = parameter_count(MODEL), 8 * 48


def _plan(**changes):
    plan = {"step_seconds_model": 0.2, "waiting_seconds_model": 0.05, "mesh": MESH}
    return {**plan, "parameters": PARAMETERS, "tokens_per_step": TOKENS, **changes}


def _doctor(**changes):
    numbers = {"seconds": 0.2, "exchange_seconds": 0.05, "parameters": PARAMETERS, "tokens": TOKENS}
    step = {"name": "step", "numbers": numbers | changes}
    return {"mesh": MESH, "checks": [{"name": "memory", "numbers": {}}, step]}


@pytest.mark.parametrize("content", [_plan(), _doctor()])
def test_a_plan_and_a_measurement_say_the_same(tmp_path, content):
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(content))
    assert read_planned_step(str(file), CONFIG) == PlannedStep("plan.json", 0.2, 0.05)


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "cannot be read: No such file"),
        ("{", "is neither what `switch_jax plan --json` prints nor"),
        ([1], "is neither"),
        ({"checks": [3]}, "is neither"),
        ({"checks": [], "mesh": MESH}, "has no time of a step"),
        (_plan(mesh=MESH | {"expert": 8}), "another mesh: it has MESH_EXPERT = 8, and this run"),
        (_plan(step_seconds_model=None, waiting_seconds_model=None), "has no time of a step"),
        (_plan(parameters=12345), f"it has 12,345 parameters .* this run {PARAMETERS:,} and 384"),
        (_doctor(tokens=999), f"and 999 tokens a step, and this run {PARAMETERS:,} and 384"),
    ],
)
def test_another_file_is_refused(tmp_path, content, message):
    file = tmp_path / "plan.json"
    if content is not None:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(UserError, match=f"--plan={file}.*{message}"):
        read_planned_step(str(file), CONFIG)


STEPS, PLANNED = 250, PlannedStep("plan.json", 0.2, 0.05)


def _said(
    monkeypatch, folder, step, data=0.0, exchanges=0.0, elsewhere=0.0, traced=True, planned=PLANNED
):
    """What a run says, by its step: each takes `step` seconds, and waits `data` before it.

    Args:
      exchanges: seconds of a step that the trace has, in which all takes twice as long.
      elsewhere: share of the time that another process waits for data.
      traced: whether a trace can be made.
    """
    now = 0.0
    goodput = Goodput(clock=lambda: now)
    profiler = types.SimpleNamespace(newest=(folder, 1.0), request=lambda: None)
    (folder / "plugins/profile/2026").mkdir(parents=True)
    operations = {"all-to-all.3": exchanges * 2 * 8, "fusion.1": 99.0}  # of 8 devices
    monkeypatch.setattr(planned_step, "operation_seconds", lambda trace: operations)
    monkeypatch.setattr(planned_step, "published", lambda name: [str(elsewhere)])
    watch, said = PlanWatch(planned, goodput, profiler), {}
    for i in range(1, STEPS + 1):
        for category, seconds in (("data", data), ("step", step), ("eval", 60 * (i % 2))):
            with goodput.spend(category):
                now += seconds
        if profiler.newest is None and traced and i == 205:
            profiler.newest = folder, 2 * (step + data)
        if line := watch.finished():
            said[i] = line
    return said


@pytest.mark.parametrize(
    "run, line",
    [
        (
            {"step": 0.16, "data": 0.25},
            "steps take 410 ms, 2.0 times the 200 ms of plan.json: 61% of the time they wait for "
            "data (docs/troubleshooting.md)",
        ),
        ({"step": 0.41, "elsewhere": 0.9}, "90% of the time they wait for data"),
        (
            {"step": 0.41, "exchanges": 0.2},
            "exchanges between devices take 200 ms of it, in place of 50 ms: look at the links",
        ),
        (
            {"step": 0.41, "exchanges": 0.1, "data": 0.01},
            "it is the step itself (2% of the time in waiting for data, 100 ms in exchanges)",
        ),
    ],
)
def test_the_part_that_most_time_is_lost_in_is_named_once(monkeypatch, tmp_path, run, line):
    said = _said(monkeypatch, tmp_path, **run)
    assert list(said) == [205]
    assert said[205].startswith("warning: steps take 4")
    assert line in said[205]


def test_without_a_trace_it_is_said_later(monkeypatch, tmp_path):
    said = _said(monkeypatch, tmp_path, step=0.41, traced=False)
    assert list(said) == [220]
    assert (
        "it is the step itself (0% of the time in waiting for data, without a trace)" in said[220]
    )


def test_a_run_as_fast_as_planned_says_so(monkeypatch, tmp_path):
    said = _said(monkeypatch, tmp_path, 0.29)
    assert said == {200: "steps take 290 ms, 1.4 times the 200 ms of plan.json"}


def test_nothing_is_said_without_a_plan(monkeypatch, tmp_path):
    assert not _said(monkeypatch, tmp_path, 9.0, planned=None)


def test_a_run_on_several_devices_says_it_and_its_records_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(planned_step, "_FIRST", 2)
    monkeypatch.setattr(planned_step, "_LAST", 8)
    (tmp_path / "plan.json").write_text(json.dumps(_plan(step_seconds_model=1e-5)))
    config = CONFIG.replace("run", model_dir=str(tmp_path / "run"))
    train_module.train(config, plan=str(tmp_path / "plan.json"))
    (line,) = (x for x in capsys.readouterr().out.splitlines() if "steps take" in x)
    # Which of the two is more depends on how busy this machine is.
    assert float(re.search(r"([\d.,]+) ms (of it|in exchanges)", line)[1].replace(",", "")) > 0
    status = read_status(tmp_path / "run")
    assert status.times_plan > 1.5
    assert "times as long as the file of --plan says" in health(status)[-1]


def test_a_slow_input_pipeline_is_seen(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(planned_step, "_FIRST", 2)
    monkeypatch.setattr(planned_step, "_LAST", 8)
    slow = train_module.device_batches

    def device_batches(batches, mesh):
        for batch in slow(batches, mesh):
            time.sleep(0.3)
            yield batch

    monkeypatch.setattr(train_module, "device_batches", device_batches)
    (tmp_path / "plan.json").write_text(json.dumps(_plan(step_seconds_model=0.01)))
    config = CONFIG.replace("run", model_dir=str(tmp_path / "run"))
    train_module.train(config, plan=str(tmp_path / "plan.json"))
    assert re.search(r"of plan.json: \d+% of the time they wait for data", capsys.readouterr().out)
