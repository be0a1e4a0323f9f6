"""The pages on runs that are there, as they are watched, compared and mended."""

import json

import pytest

from tests.docs.pages import DOCS, blocks, follow

TRAIN = "".join(
    f"switch_jax train --gin_file=runs/demo_{model}.gin --gin.MODEL_DIR=runs/{model} "
    "--gin.TRAIN_STEPS=4 --gin.LOG_PERIOD=1 --gin.EVAL_PERIOD=2 --gin.EVAL_STEPS=1\n"
    for model in ("switch", "dense")
)


@pytest.mark.slow
def test_every_command_runs(tmp_path):
    pages = ("monitoring", "reports", "troubleshooting")
    typed = [block for page in pages for block in blocks((DOCS / f"{page}.md").read_text())]
    # It would serve until Ctrl-C.
    typed = [block.replace("tensorboard ", "tensorboard --inspect ") for block in typed]
    assert len(typed) == 4
    printed = follow([TRAIN, *typed], tmp_path)
    assert "runs/switch: finished" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("{")]
    assert json.loads(line)["step"] == 4
    assert (tmp_path / "report.html").stat().st_size > 10_000
