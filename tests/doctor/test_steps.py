"""The doctor's step against a Transformer in NumPy, on a mesh, and where it goes wrong."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.doctor import steps
from switch_jax.doctor.checks import Verdict, run_checks
from switch_jax.doctor.steps import REFERENCE, Step, batch_of, config_of
from switch_jax.model import init_parameters
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.state import fresh_state
from switch_jax.train_step.step import make_train_step
from tests.doctor import plain_transformer
from tests.trainer.helpers import GRADIENTS


def test_the_shipped_numbers_are_those_of_a_transformer_in_numpy():
    """The norm is the slope of NumPy's loss along the gradient; along all else it would be less."""
    config = config_of(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]), "float32")
    batch = batch_of(config)
    parameters = jax.jit(lambda: init_parameters(config.model, jax.random.key(0)))()
    state = fresh_state(config, GRADIENTS, parameters)
    new, metrics = jax.jit(make_train_step(config, GRADIENTS))(state, batch)
    found = {name: float(getattr(metrics, name)) for name in REFERENCE}
    assert found == pytest.approx(REFERENCE, rel=1e-6)

    start = jax.tree.map(lambda x: np.asarray(x, np.float64), parameters)
    norm = float(metrics.gradient_norm)
    along = jax.tree.map(lambda g: np.asarray(g, np.float64) / norm, new.optimizer)

    def loss(moved):
        return plain_transformer.loss(jax.tree.map(lambda x, u: x + moved * u, start, along), batch)

    assert loss(0.0) == pytest.approx(REFERENCE["loss"], rel=1e-6)
    slope = (loss(1e-5) - loss(-1e-5)) / 2e-5
    assert slope == pytest.approx(REFERENCE["gradient_norm"], rel=1e-5)


def test_the_step_passes_on_a_mesh():
    mesh = make_mesh(MeshConfig(2, 2, 2))
    found = list(run_checks(steps.step_checks(mesh)))
    assert [finding.verdict for finding in found] == [Verdict.OK] * 2, found
    assert found[0].numbers["difference"] < 1e-5


def test_axes_that_experts_and_heads_do_not_divide_over_give_devices_to_data():
    mesh = make_mesh(MeshConfig(1, 6, 1), jax.devices()[:6])
    assert dict(steps._fitting(mesh).shape) == {"data": 3, "expert": 2, "model": 1}
    mesh = make_mesh(MeshConfig(2, 2, 2))
    assert steps._fitting(mesh) is mesh


def step_that_gives(*results):
    """A `Step` without a program."""
    each = iter(results)
    return Step(None, lambda: next(each), None, 0.0)


@pytest.mark.parametrize(("platform", "verdict"), [("cpu", "failed"), ("tpu", "ok")])
def test_a_small_difference_is_a_mistake_on_a_cpu_alone(platform, verdict, monkeypatch):
    monkeypatch.setattr(jax, "devices", lambda: [SimpleNamespace(platform=platform)])
    metrics = SimpleNamespace(loss=REFERENCE["loss"] * 1.002, gradient_norm=6.067276)
    found = steps._against_reference(step_that_gives((None, metrics)))
    assert found.verdict == verdict
    allowed = {"cpu": "1e-04", "tpu": "1e-02"}[platform]
    assert found.text == (
        "loss 8.0233, norm of the gradient 6.0673: differs by 2.0e-03 from the shipped 8.0073 and "
        f"6.0673, {allowed} is allowed"
    )


def test_another_loss_is_reported_in_words():
    metrics = SimpleNamespace(loss=np.float32("nan"), gradient_norm=6.0)
    found = steps._against_reference(step_that_gives((None, metrics)))
    assert found.verdict == Verdict.FAILED
    assert ": loss nan, norm of the gradient 6.0000: differs by nan" in str(found)
    assert "look at the checks that failed above" in str(found)


def test_a_step_that_gives_other_bits_is_reported_in_words():
    first, second = (
        SimpleNamespace(parameters={"a": jax.numpy.ones(3), "b": jax.numpy.float32(b)})
        for b in (0.0, -0.0)
    )
    found = steps._twice(step_that_gives((first, None), (second, None)))
    assert str(found).startswith("failed   : 1 of 2 arrays differ; a run cannot be repeated")
