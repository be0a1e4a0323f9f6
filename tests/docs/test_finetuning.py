"""The example of the page on fine-tuning, command by command."""

import re

import pytest

from switch_jax.run_folder import RunFolder
from tests.docs.pages import DOCS, blocks, follow


@pytest.mark.slow
def test_every_command_of_the_example_runs(tmp_path):
    page = blocks((DOCS / "finetuning.md").read_text())
    typed = [block for block in page if "my_tuning.gin" in block or "runs/parent" in block]
    assert len(typed) == 6
    printed = follow(typed, tmp_path)
    for run in ("tuned", "in_bytes", "same_routers"):
        assert (RunFolder(tmp_path / "runs" / run).checkpoints / "20").exists()
    assert len(re.findall("(?m)^the model is that of .*/runs/parent/config.gin: ", printed)) == 3
    assert re.search(r"token_embedding/embedding +\(1152, 32\)", printed)
    assert "27 arrays of 28 are restored" in printed and "26 arrays of 28 are trained" in printed
    assert "drawn at random: embedding 12,288\n" in printed
