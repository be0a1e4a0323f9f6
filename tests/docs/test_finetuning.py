"""The steps of the page on fine-tuning, command by command."""

import json
import re

import pytest

from switch_jax.run_folder import RunFolder
from tests.docs.pages import DOCS, blocks, follow


@pytest.mark.slow
def test_every_command_of_the_steps_runs(tmp_path):
    page = blocks((DOCS / "finetuning.md").read_text())
    ours = ("my_data", "my_tuning.gin", "runs/parent", "my_questions", "runs/tuned")
    typed = [block for block in page if any(name in block for name in ours)]
    assert len(typed) == 13
    # A dry run needs no Slurm.
    printed = follow(
        [block.replace("--on=slurm", "--on=slurm --dry_run") for block in typed], tmp_path
    )
    for run in ("tuned", "mixed", "in_bytes", "same_routers", "slow_routers"):
        assert (RunFolder(tmp_path / "runs" / run).checkpoints / "20").exists()
    assert "lose their end" in printed and "#SBATCH --nodes=2" in printed
    assert len((tmp_path / "runs/answers.jsonl").read_text().splitlines()) > 100
    assert (tmp_path / "runs/report.html").stat().st_size > 10_000
    records = map(json.loads, (tmp_path / "runs/mixed/metrics.jsonl").read_text().splitlines())
    assert {(r["step"], r["task"]): set(r["generated"]) for r in records if "generated" in r} == {
        (step, task): {metric}
        for step in (0, 10, 20)
        for task, metric in (
            ("my_questions", "accuracy"),
            ("wordnet_wic", "accuracy"),
            ("all", "average"),
        )
    }
    assert len(re.findall("(?m)^the model is that of .*/runs/parent/config.gin$", printed)) == 5
    assert re.search(r"token_embedding/embedding +\(1152, 32\)", printed)
    assert "26 arrays of 28 are trained" in printed
    assert "drawn at random: embedding 12,288\n" in printed
