"""Runs that earlier code began: what it saved is read, and the step does what it did then."""

import tarfile
from pathlib import Path

import jax
import numpy as np
import pytest

from switch_jax import gin_config
from switch_jax.checkpointing import Checkpoints
from switch_jax.cli import main
from switch_jax.optim.optimizer import make_optimizer
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.run_folder import RunFolder
from switch_jax.train_step.bad_step_guard import init_guard
from switch_jax.train_step.state import abstract_state
from switch_jax.train_step.step import make_train_step
from tests.trainer.helpers import random_batch

ARCHIVE = Path(__file__).parent / "earlier_runs/runs.tar.xz"
# What that code gave for the next four steps on `random_batch`es.
LOSSES = {
    "t5": [6.905550003051758, 6.656591892242432, 6.544168472290039, 6.2256035804748535],
    "switch": [7.026601314544678, 6.808744430541992, 6.771024227142334, 6.205662250518799],
}


@pytest.fixture(params=["switch", pytest.param("t5", marks=pytest.mark.slow)])
def run(request, tmp_path):
    """Name and folder of a run after 6 steps."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return request.param, tmp_path / request.param


def test_the_next_steps_have_the_losses_that_they_had_then(run):
    name, folder = run
    config = gin_config.read([str(folder / "config.gin")]).config
    mesh = make_mesh(config.mesh)
    with jax.set_mesh(mesh):
        abstract = abstract_state(config, mesh)
        fresh = {"guard": lambda: init_guard(config.guard)}
        restored = Checkpoints(RunFolder(folder), keep=1).restore(abstract, fresh=fresh)
        optimizer = make_optimizer(config)
        step = jax.jit(make_train_step(config, optimizer))
        state, losses = restored.state, []
        for seed in range(4):
            state, metrics = step(state, random_batch(8, 64, 16, seed=seed))
            losses.append(float(metrics.loss))
    # On the machine that made them they are equal to the last bit; other processors add otherwise.
    np.testing.assert_allclose(losses, LOSSES[name], rtol=1e-5)
    assert int(state.step) == 6 + 4


def test_training_goes_on(run, capsys):
    _, folder = run
    flags = [f"--gin_file={folder / 'config.gin'}", f"--gin.MODEL_DIR={str(folder)!r}"]
    assert main(["train", *flags, "--gin.TRAIN_STEPS=8"]) == 0
    output = capsys.readouterr().out
    assert "continuing from the checkpoint of step 6" in output
    assert "anew (the checkpoint does not say of what its best evaluation was)" in output
    assert sorted(int(p.name) for p in (folder / "checkpoints").iterdir())[-1] == 8
    assert main(["status", str(folder)]) == 0
    assert "finished" in capsys.readouterr().out
