"""The page on fine-tuning and those that go on from its runs, command by command."""

import json
import re

import pytest

from switch_jax.run_folder import RunFolder
from tests.conversion.t5x.checkpoints import SWITCH, write_checkpoint
from tests.docs.pages import follow, typed_here

PAGES = ("finetuning", "mixtures", "initial_weights", "evaluating", "converting")


@pytest.mark.slow
def test_every_command_on_a_tuned_model_runs(tmp_path):
    # Small models stand for released ones.
    write_checkpoint(tmp_path / "checkpoint_500100", SWITCH)
    typed = {page: typed_here(f"{page}.md") for page in PAGES}
    typed["converting"].insert(0, "switch_jax convert runs/tuned switch-base-8")
    printed = follow([block for page in PAGES for block in typed[page]], tmp_path)
    runs = tmp_path / "runs"
    for run in (
        "tuned",
        "mixed",
        "my_mixture",
        "from_20",
        "in_bytes",
        "same_routers",
        "slow_routers",
    ):
        assert (RunFolder(runs / run).checkpoints / "20").exists()
    for run in ("switch_base_8", "from_t5x"):
        assert (RunFolder(runs / run).checkpoints / "0").exists()
    assert (runs / "best_hugging_face/model.safetensors").exists()
    assert "lose their end" in printed
    for file in ("answers", "predictions"):
        assert len((runs / f"{file}.jsonl").read_text().splitlines()) > 100
    assert (runs / "report.html").stat().st_size > 10_000
    records = map(json.loads, (runs / "mixed/metrics.jsonl").read_text().splitlines())
    assert {(r["step"], r["task"]): set(r["generated"]) for r in records if "generated" in r} == {
        (step, task): {metric}
        for step in (0, 10, 20)
        for task, metric in (
            ("my_questions", "accuracy"),
            ("wordnet_wic", "accuracy"),
            ("all", "average"),
        )
    }
    assert len(re.findall("(?m)^the model is that of .*/runs/parent/config.gin$", printed)) == 7
    assert re.search(r"token_embedding/embedding +\(1152, 32\)", printed)
    assert "26 arrays of 28 are trained" in printed
    assert "drawn at random: embedding 12,288\n" in printed
