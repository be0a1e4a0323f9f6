"""Several processes as several hosts: the same run, and stops that all of them agree on."""

import signal

import numpy as np
import pytest

from tests.trainer.worker_processes import (
    SMALL,
    finish,
    losses,
    output,
    records,
    run,
    run_here,
    start,
    wait_for_step,
)


def test_two_processes_are_stopped_and_one_goes_on_with_another_mesh(alone, tmp_path):
    folder = tmp_path / "run"
    processes = start(2, folder, SMALL)
    wait_for_step(folder, 2, processes)
    processes[1].send_signal(signal.SIGTERM)  # to the one that writes no metrics
    assert finish(processes, folder) == [75, 75], output(folder)
    stopped = records(folder)[-1]["step"]
    assert f"the state of step {stopped} is saved" in output(folder)
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
    assert finish(processes, folder, timeout=120) == [75, 75], output(folder)
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
