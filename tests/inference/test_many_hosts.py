"""`switch_jax eval` and `infer` with two real processes."""

import json
import shutil

import numpy as np
import pytest

from switch_jax.cli import main
from tests.trainer.worker_processes import finish, launch, output, run


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_give_the_results_of_one(tmp_path):
    alone, together = tmp_path / "alone", tmp_path / "together"
    gin = tmp_path / "answers.gin"
    gin.write_text(
        "import tests.cli.answers\nMIXTURE_OR_TASK_NAME = 'answers'\nPACK = False\n"
        "TASK_FEATURE_LENGTHS = {'inputs': 32, 'targets': 8}\nGROUP_SIZE = 32\nTRAIN_STEPS = 10\n"
    )
    run(1, alone, f"--gin_file={gin}")
    shutil.copytree(alone, together)
    for folder, count in ((alone, 1), (together, 2)):
        for command in (
            ["eval", str(folder), "--checkpoint=all"],
            ["infer", str(folder), "--task=exact_answers", f"--output={folder}.jsonl"],
        ):
            processes = launch(count, folder, *command)
            assert finish(processes, folder) == [0] * count, output(folder)
    results, expected = (lines(f / "eval" / "metrics.jsonl") for f in (together, alone))
    names = "kind", "step", "task"
    assert [[r[n] for n in names] for r in results] == [[r[n] for n in names] for r in expected]
    for ours, theirs in zip(results, expected, strict=True):
        for name, value in theirs["metrics"].items():
            np.testing.assert_allclose(ours["metrics"][name], value, rtol=1e-5)
    ours, theirs = (lines(tmp_path / f"{f.name}.jsonl") for f in (together, alone))
    assert [r["prediction"] for r in ours] == [r["prediction"] for r in theirs]
    assert len(theirs) == 10 and main(["eval", str(together), "--checkpoint=all"]) == 0
