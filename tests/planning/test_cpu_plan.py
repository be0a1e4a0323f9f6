"""Plans of the tiny model on this machine's CPUs, with speeds by hand."""

import dataclasses

import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.errors import UserError
from switch_jax.hardware import Cpus
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.planning.cpu_plan import make_cpu_plan, measured_exchanges, seconds_by_speeds
from switch_jax.planning.hlo import Operation
from switch_jax.planning.measured import ALL_PARTS, Exchange, Measured, Speeds
from tests.trainer.helpers import tiny_config, tiny_model

CONFIG = tiny_config(tiny_model(group_size=8), mesh=MeshConfig(2, 4, 1))
SPEEDS = Speeds(1e9, 1e9, {"all-to-all over expert": Exchange(1e8, 1e-6)})


def _measured(ratios=None, devices=8, kind="cpu"):
    return Measured("doctor.json", kind, devices, SPEEDS, ratios or {}, 1.0)


def test_an_operation_takes_as_long_as_its_products_or_its_memory():
    mesh = make_mesh(CONFIG.mesh)
    scope = "jit(train_step)/{}/x".format
    found = [  # 4000 bytes of results
        Operation("a", "dot", "f32[1000]{0}", "()", 3, 8000, scope("attention")),
        Operation("b", "dot", "f32[1000]{0}", "()", 1, 100, scope("attention")),
        Operation("c", "fusion", "f32[1000]{0}", "()", 2, 0, scope("experts")),
        Operation("d", "while", "f32[1000]{0}", "()", 1, 0, scope("experts")),
        Operation(
            "e", "all-to-all", "f32[1000]{0}", "(%x), replica_groups={{0,1,2,3}}", 5, 0,
            scope("experts"),
        ),
    ]  # fmt: skip
    parts = seconds_by_speeds(found, measured_exchanges(found, mesh, SPEEDS), SPEEDS)
    assert parts["attention"] == pytest.approx(3 * 8e-6 + 4e-6)
    assert parts["experts"] == pytest.approx(2 * 4e-6)
    assert parts["exchanges"] == pytest.approx(5 * 4000 / 1e8)


def test_parts_are_multiplied_by_what_was_measured():
    plain = make_cpu_plan(CONFIG, Cpus("cpu-8", 8), _measured())
    slower = make_cpu_plan(CONFIG, Cpus("cpu-8", 8), _measured({"attention": 3.0, ALL_PARTS: 2.0}))
    assert {"attention", "experts", "dispatch", "router", "exchanges"} <= set(plain.parts)
    for part, seconds in plain.parts.items():
        ratio = 3.0 if part == "attention" else 2.0
        np.testing.assert_allclose(slower.parts[part], ratio * seconds)
    assert slower.fits and slower.mesh == (2, 4, 1)
    json = slower.as_json()
    np.testing.assert_allclose(json["step_seconds_model"], sum(slower.parts.values()))
    np.testing.assert_allclose(json["tokens_per_second"], 8 * (16 + 8) / slower.step_seconds)
    assert json["measured"]["file"] == "doctor.json" and json["waiting_seconds_model"] > 0


@pytest.mark.parametrize(
    "measured, problem",
    [
        (None, "needs --measured=FILE, where FILE is what"),
        (_measured(devices=2), "on 8 CPU devices; doctor.json is of 2 x cpu"),
        (_measured(kind="TPU v4"), "on 8 CPU devices; doctor.json is of 8 x TPU v4"),
    ],
)
def test_only_what_was_measured_is_planned(measured, problem):
    with pytest.raises(UserError, match=problem):
        make_cpu_plan(CONFIG, Cpus("cpu-8", 8), measured)


def test_a_mesh_without_a_data_axis_takes_all_devices_that_are_planned_for():
    config = dataclasses.replace(CONFIG, mesh=MeshConfig(None, 2, 1))
    assert make_cpu_plan(config, Cpus("cpu-4", 4), _measured(devices=4)).mesh == (2, 2, 1)


def test_a_mesh_of_another_size_is_refused():
    with pytest.raises(UserError, match="must multiply up to 4"):
        make_cpu_plan(CONFIG, Cpus("cpu-4", 4), _measured(devices=4))
