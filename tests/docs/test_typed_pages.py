"""Pages and README.md, command by command: as somebody types them who has nothing but the page."""

import json
import re

import pytest

from switch_jax.run_folder import RunFolder
from tests.conversion.t5x.checkpoints import SWITCH, write_checkpoint
from tests.docs.pages import ROOT, blocks, follow, typed_here

# By page: runs that its commands train, and to which step.
RUNS = {
    "first_hour": {"first": 60, "four": 60, "first_16": 60},
    "own_tasks": {"my_text": 60, "my_words": 20},
    "configs": {"four_experts": 20, "dense": 20, "my_config": 20},
    "meshes": {"eight": 20},
    "experts": {"experts_16": 20, "top_2": 20, "experts_choose": 20},
    "optimizers": {"muon": 40, "constant": 20},
    "prepare_data": {},
    "c4": {"pages": 20},
    "vocabularies": {"own_words": 20},
    "upcycling": {"dense": 20, "upcycled": 20},
    "distilling": {"teacher": 20, "student": 20},
}
SHORT = "--gin.TRAIN_STEPS=20 --gin.EVAL_PERIOD=10 --gin.EVAL_STEPS=1"
DEMO = "switch_jax train --gin_file=runs/demo_{}.gin " + SHORT
MODELS = ("switch", "dense")


def has_step(run, step):
    return (RunFolder(run).checkpoints / str(step)).exists()


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNS)
def test_every_command_of_a_page_that_trains(page, tmp_path):
    printed = follow(typed_here(f"{page}.md"), tmp_path)
    assert printed
    for run, step in RUNS[page].items():
        assert has_step(tmp_path / "runs" / run, step), run
    if page == "first_hour":
        assert "prediction" in printed  # the last command asks the model
        assert (tmp_path / "runs/report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_every_command_on_runs_that_are_there(tmp_path):
    """As they are watched, compared and mended."""
    pages = ("monitoring", "reports", "troubleshooting")
    typed = [block for page in pages for block in typed_here(f"{page}.md")]
    # It would serve until Ctrl-C.
    typed = [block.replace("tensorboard ", "tensorboard --inspect ") for block in typed]
    assert len(typed) == 4
    runs = [f"{DEMO.format(m)} --gin.LOG_PERIOD=1 --gin.MODEL_DIR=runs/{m}" for m in MODELS]
    printed = follow([*runs, *typed], tmp_path)
    assert "runs/switch: finished" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("{")]
    assert json.loads(line)["step"] == 20
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_every_command_of_the_readme(tmp_path):
    """With shorter runs than those of `make demo`."""
    lines = "In the beginning there was a short text of a user's own, of many lines.\n" * 200
    for file in ("my_train.txt", "my_valid.txt"):
        (tmp_path / file).write_text(lines)
    demo, *typed = blocks((ROOT / "README.md").read_text())
    assert demo.startswith("make demo ")
    typed = [
        block.replace("demo_finetune.gin ", f"demo_finetune.gin {SHORT} ").replace("=300", "=20")
        for block in typed
        if "switch_jax plan" not in block  # minutes, in tests/planning
    ]
    printed = follow([*map(DEMO.format, MODELS), *typed], tmp_path)
    for run in ("demo/switch", "demo/dense", "sixteen", "mine", "demo/questions"):
        assert has_step(tmp_path / "runs" / run, 20), run
    assert "my_span_corruption, validation, example 1\n" in printed
    assert '"prediction"' in printed
    assert "queued-resources create base" in printed  # of launch, which starts nothing
    assert (tmp_path / "questions_hf/config.json").exists()


@pytest.mark.slow
def test_every_command_on_a_tuned_model(tmp_path):
    """The page on fine-tuning, and those that go on from its runs."""
    # Small models stand for released ones.
    write_checkpoint(tmp_path / "checkpoint_500100", SWITCH)
    pages = ("finetuning", "mixtures", "initial_weights", "evaluating", "converting")
    typed = {page: typed_here(f"{page}.md") for page in pages}
    typed["converting"].insert(0, "switch_jax convert runs/tuned switch-base-8")
    printed = follow([block for page in pages for block in typed[page]], tmp_path)
    runs = tmp_path / "runs"
    trained = "tuned mixed my_mixture from_20 in_bytes same_routers slow_routers".split()
    assert all(has_step(runs / run, 20) for run in trained)
    assert has_step(runs / "switch_base_8", 0) and has_step(runs / "from_t5x", 0)
    assert (runs / "best_hugging_face/model.safetensors").exists()
    assert "lose their end" in printed
    for file in ("answers", "predictions"):
        assert len((runs / f"{file}.jsonl").read_text().splitlines()) > 100
    assert (runs / "report.html").stat().st_size > 10_000
    records = map(json.loads, (runs / "mixed/metrics.jsonl").read_text().splitlines())
    metrics = {"my_questions": "accuracy", "wordnet_wic": "accuracy", "all": "average"}
    assert {(r["step"], r["task"]): set(r["generated"]) for r in records if "generated" in r} == {
        (step, task): {metric} for step in (0, 10, 20) for task, metric in metrics.items()
    }
    assert len(re.findall("(?m)^the model is that of .*/runs/parent/config.gin$", printed)) == 7
    assert re.search(r"token_embedding/embedding +\(1152, 32\)", printed)
    assert "26 arrays of 28 are trained" in printed
    assert "drawn at random: embedding 12,288\n" in printed
