"""README.md, command by command, with shorter runs than those of `make demo`."""

import pytest

from switch_jax.run_folder import RunFolder
from tests.docs.pages import ROOT, blocks, follow

LINES = "In the beginning there was a short text of a user's own, of many lines.\n" * 200
SHORT = "--gin.TRAIN_STEPS=20 --gin.EVAL_PERIOD=10 --gin.EVAL_STEPS=1"
DEMO = "".join(
    f"switch_jax train --gin_file=runs/demo_{model}.gin {SHORT}\n" for model in ("switch", "dense")
)


@pytest.mark.slow
def test_every_command_of_the_readme_runs(tmp_path):
    for file in ("my_train.txt", "my_valid.txt"):
        (tmp_path / file).write_text(LINES)
    demo, *typed = blocks((ROOT / "README.md").read_text())
    assert demo.startswith("make demo ")
    typed = [
        block.replace("demo_finetune.gin ", f"demo_finetune.gin {SHORT} ").replace("=300", "=20")
        for block in typed
        if "switch_jax plan" not in block  # minutes, in tests/planning
    ]
    printed = follow([DEMO, *typed], tmp_path)
    for run in ("demo/switch", "demo/dense", "sixteen", "mine", "demo/questions"):
        assert (RunFolder(tmp_path / "runs" / run).checkpoints / "20").exists(), run
    assert "my_span_corruption, validation, example 1\n" in printed
    assert '"prediction"' in printed
    assert "queued-resources create base" in printed  # of launch, which starts nothing
    assert (tmp_path / "questions_hf/config.json").exists()
