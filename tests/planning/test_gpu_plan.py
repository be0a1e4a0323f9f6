import dataclasses

import jax
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.errors import UserError
from switch_jax.gpus import parse_cluster
from switch_jax.model.flops import parameter_count
from switch_jax.planning import gpu_plan
from switch_jax.planning.gpu_compiler import GpuMemory
from tests.trainer.helpers import tiny_config, tiny_model

GIB = 2**30
CONFIG = tiny_config(tiny_model(group_size=8), mesh=MeshConfig(2, 4, 1))


def _memory(gib):
    """Of a program whose new state reuses the memory of the old one."""
    return GpuMemory(GIB, GIB + 1000, GIB, int((gib - 1) * GIB) - 1000, 6, 2.0)


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
    plan = dataclasses.replace(made, memory=_memory(gib))
    assert (plan.fits, plan.needs_fraction) == (fits, needs_fraction)
