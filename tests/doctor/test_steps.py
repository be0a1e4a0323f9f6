"""The doctor's step against a Transformer in NumPy, on several meshes, and when it goes wrong."""

import dataclasses

import jax
import numpy as np
import pytest

from switch_jax.config import MeshConfig
from switch_jax.doctor import steps
from switch_jax.doctor.checks import Verdict, run_checks
from switch_jax.doctor.steps import REFERENCE, Step, batch_of, config_of
from switch_jax.model import bind, init_parameters, model_inputs
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.train_step.step import make_train_step
from tests.doctor import plain_transformer


@pytest.fixture(scope="module")
def on_one_device():
    """The mesh of one device, and the step on it."""
    mesh = make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    config = config_of(mesh, "float32")
    with jax.set_mesh(mesh):
        yield mesh, Step.of(config, mesh, batch_of(config))


def test_the_shipped_loss_and_norm_are_those_of_a_transformer_in_numpy(on_one_device):
    mesh, _ = on_one_device
    config = config_of(mesh, "float32")
    batch = batch_of(config)
    parameters = jax.jit(lambda: init_parameters(config.model, jax.random.key(0)))()
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), parameters)
    assert plain_transformer.loss(wide, batch) == pytest.approx(REFERENCE["loss"], rel=1e-6)


@pytest.mark.parametrize("shape", [(4, 2, 1), (2, 2, 2)])
def test_the_step_passes_on_a_mesh(shape):
    mesh = make_mesh(MeshConfig(*shape))
    with jax.set_mesh(mesh):
        found = list(run_checks(steps.step_checks(mesh)))
    assert [finding.verdict for finding in found] == [Verdict.OK] * 2, found
