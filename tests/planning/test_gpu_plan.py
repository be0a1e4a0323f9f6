import dataclasses

import jax
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.errors import UserError
from switch_jax.gpus import parse_cluster
from switch_jax.model.flops import parameter_count
from switch_jax.planning import gpu_plan, plan_text
from switch_jax.planning.gpu_compiler import GpuMemory
from switch_jax.planning.measured import Measured, Speeds
from tests.trainer.helpers import tiny_config, tiny_model

GIB = 2**30
CONFIG = tiny_config(tiny_model(group_size=8), mesh=MeshConfig(2, 4, 1))


def _memory(gib):
    """Of a program whose new state reuses the memory of the old one."""
    return GpuMemory(GIB, GIB + 1000, GIB, int((gib - 1) * GIB) - 1000, 0, 6, 2.0)


@pytest.fixture
def made(monkeypatch):
    """The plan of the tiny model on eight CPUs that stand for H100s."""
    monkeypatch.setattr(gpu_plan, "devices", lambda _: jax.devices())
    monkeypatch.setattr(gpu_plan, "compile_for_memory", lambda lowered: _memory(10))
    return gpu_plan.make_gpu_plan(CONFIG, parse_cluster("h100-8"))


def test_what_the_plan_says_of_the_run(made):
    assert made.mesh == (2, 4, 1)
    assert made.parameters == parameter_count(CONFIG.model)
    assert made.parameter_bytes == 4 * made.parameters and made.teacher_bytes == 0
    assert made.tokens == 8 * (16 + 8)
    assert made.groups["encoder"].tokens == 8
    assert made.hbm_bytes == 10 * GIB
    np.testing.assert_allclose(made.least_seconds, made.model_flops / 8 / 989e12)
    assert made.as_json()["hbm_outputs_bytes"] == 1000


def test_only_data_crosses_servers():
    config = CONFIG.replace("mesh", data=1, expert=16)
    with pytest.raises(UserError, match="mesh data = 1 does not divide over 2 machines"):
        gpu_plan.make_gpu_plan(config, parse_cluster("h100-16"))


@pytest.mark.parametrize(
    "gib, fits, needs_fraction",
    [(59, True, False), (60, True, True), (75, True, True), (76, False, False)],
)
def test_an_h100_has_79_gib_of_which_jax_takes_three_quarters(made, gib, fits, needs_fraction):
    plan = dataclasses.replace(made, hbm_bytes=gib * GIB)
    assert (plan.fits, plan.needs_fraction) == (fits, needs_fraction)


def test_a_measured_step_gives_plans_a_time(made):
    assert made.step_seconds is None and made.as_json()["step_seconds_model"] is None
    speeds = Speeds(1.0, 1.0, {})
    measured = Measured("doctor.json", "NVIDIA H100 80GB HBM3", 1, speeds, {}, 989e12 / 4)
    plan = dataclasses.replace(made, measured=measured)
    np.testing.assert_allclose(plan.step_seconds, 4 * plan.least_seconds)
    text = plan_text.table(plan)
    assert "ms, at 25.00 % of the peak, as the step in doctor.json" in text
    np.testing.assert_allclose(plan.tokens_per_second, made.tokens / plan.step_seconds)
    np.testing.assert_allclose(plan.as_json()["days"], 10 * plan.step_seconds / 86400)
    assert "tokens a second  " in text and "10 steps (TRAIN_STEPS)  " in text


def test_a_file_of_other_gpus_is_refused():
    measured = Measured("doctor.json", "NVIDIA A100-SXM4", 1, Speeds(1.0, 1.0, {}), {}, 1.0)
    with pytest.raises(UserError, match="doctor.json is of NVIDIA A100-SXM4, and h100-8 has GPUs"):
        gpu_plan.make_gpu_plan(CONFIG, parse_cluster("h100-8"), measured)
