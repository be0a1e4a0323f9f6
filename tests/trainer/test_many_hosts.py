"""Several processes as several hosts: the same run, and stops that all of them agree on."""

import signal
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from switch_jax.checkpointing import Checkpoints
from switch_jax.config import MeshConfig
from switch_jax.partitioning.mesh import make_mesh
from switch_jax.run_folder import RunFolder
from switch_jax.train_step.state import abstract_state
from tests.trainer.helpers import tiny_config, tiny_model
from tests.trainer.worker_processes import (
    ROOT,
    SMALL,
    finish,
    free_port,
    losses,
    output,
    records,
    run,
    run_here,
    start,
    wait_for_step,
    without_virtual_devices,
)

# So large that moments are factored.
MODEL = tiny_model(num_embeddings=128, embed_dim=128, mlp_dim=128)


def state_on(mesh):
    """A state there, every element of it another number, and its shapes."""
    layout = MeshConfig(*mesh, fully_sharded_weights=True)
    abstract = abstract_state(tiny_config(MODEL).replace("mesh", **vars(layout)), make_mesh(layout))
    leaves, structure = jax.tree.flatten(abstract)
    numbers, made = 0, []
    for leaf in leaves:
        array = np.arange(numbers, numbers + leaf.size).reshape(leaf.shape).astype(leaf.dtype)
        numbers += leaf.size
        made.append(jax.make_array_from_callback(leaf.shape, leaf.sharding, array.__getitem__))
    return jax.tree.unflatten(structure, made), abstract


def save_as_one_of_two(folder, port, index):
    """What each of two processes does, with four devices each."""
    from switch_jax.runtime import multihost

    multihost.connect(f"localhost:{port}", 2, int(index), local_cpu_devices=4)
    state, _ = state_on((2, 4, 1))
    checkpoints = Checkpoints(RunFolder(Path(folder)), keep=1)
    checkpoints.save(7, state, {"whose": jax.process_index()}, None)
    checkpoints.close()


@pytest.mark.slow
def test_a_state_of_two_processes_comes_back_whole_on_one_with_another_mesh(tmp_path):
    program = "import sys; from tests.trainer.test_many_hosts import save_as_one_of_two as save"
    command = [sys.executable, "-c", f"{program}; save(*sys.argv[1:])", str(tmp_path)]
    port = free_port()
    env = without_virtual_devices()
    processes = [
        subprocess.Popen([*command, str(port), str(i)], env=env, cwd=ROOT) for i in range(2)
    ]
    assert finish(processes, tmp_path) == [0, 0]
    expected, abstract = state_on((1, 2, 2))
    restored = Checkpoints(RunFolder(tmp_path), keep=1).restore(abstract)
    assert (restored.step, restored.notes) == (7, {"whose": 0})
    jax.tree.map(np.testing.assert_array_equal, restored.state, expected)
    for a in jax.tree.leaves(restored.state):
        assert a.sharding.mesh.shape == {"data": 1, "expert": 2, "model": 2}


def test_two_processes_are_stopped_and_one_goes_on_with_another_mesh(alone, tmp_path):
    folder, terminated = tmp_path / "run", tmp_path / "terminated.gin"
    terminated.write_text("import tests.trainer.terminated\n")  # the one that writes no metrics
    split = "--gin.FULLY_SHARDED_WEIGHTS=True"
    processes = start(2, folder, SMALL, split, f"--gin_file={terminated}")
    assert finish(processes, folder) == [75, 75], output(folder)
    stopped = records(folder)[-1]["step"]
    assert f"the state of step {stopped} is saved" in output(folder)
    # Weights were split over the devices of both; now they are whole.
    run_here(folder, SMALL, "--gin.MESH_DATA=1", "--gin.MESH_MODEL=2", "--gin.EVAL_PERIOD=None")
    # No step twice: all that was done was saved.
    assert [r["step"] for r in records(folder)] == list(range(1, 13))
    # The same global batches in the same order, and losses equal to rounding.
    for step, (batch, loss) in losses(folder).items():
        expected = losses(alone)[step]
        assert batch == expected[0]
        np.testing.assert_allclose(loss, expected[1], rtol=1e-5)


@pytest.mark.slow
def test_a_signal_to_one_stops_both_while_the_data_of_the_other_stall(tmp_path):
    folder, stalling = tmp_path / "run", tmp_path / "stalling.gin"
    stalling.write_text("import tests.trainer.stalling\n")
    processes = start(2, folder, f"--gin_file={stalling}")
    wait_for_step(folder, 3, processes)
    processes[1].send_signal(signal.SIGTERM)  # which waits in step 5 for the first, or soon will
    assert finish(processes, folder) == [75, 75], output(folder)
    assert "asked to terminate: the state of step 4 is saved" in output(folder)
    assert [r["step"] for r in records(folder)] == [1, 2, 3, 4]
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["4"]


@pytest.mark.slow
def test_two_processes_start_from_what_one_has_trained(alone, tmp_path):
    folder = tmp_path / "run"
    run(2, folder, SMALL, f"--gin.INITIAL_CHECKPOINT_PATH={alone}", "--gin.TRAIN_STEPS=1")
    assert f"starting from the parameters of {alone}/checkpoints/24" in output(folder)
    start, end = records(folder, "eval")[0], records(alone, "eval")[-1]
    assert (start["step"], end["step"]) == (0, 24)
    np.testing.assert_allclose(start["neg_log_perplexity"], end["neg_log_perplexity"], rtol=1e-5)
