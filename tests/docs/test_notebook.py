"""The notebook: it is stored without outputs, and runs from top to bottom."""

import json
import os
import subprocess
import sys

import pytest

from tests.docs.pages import ROOT

NOTEBOOK = json.loads((ROOT / "notebooks/first_steps.ipynb").read_text(encoding="utf-8"))
CODE = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]


def test_its_cells_are_without_outputs_and_name_what_is_there():
    for cell in NOTEBOOK["cells"]:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        for word in "".join(cell["source"]).split():
            name = word.strip(".,:;()`")
            if name.startswith("docs/") and not name.startswith("docs/reference/"):
                assert (ROOT / name).exists(), name


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(tmp_path):
    at_the_end = """
import json
held_out = [r["neg_log_perplexity"] for r in records if r["kind"] == "eval"]
tokens = [counter.total() for counter in taken]
print(json.dumps({"held_out": held_out, "tokens": tokens, "step": records[-1]["step"]}))
"""
    script = tmp_path / "cells.py"
    script.write_text("\n".join([*CODE, at_the_end]), encoding="utf-8")
    # The devices are those of the machine, and not those of the tests.
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment | {"MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["step"] == 600
    assert found["held_out"][0] < -5 and found["held_out"][-1] > -4
    assert len(found["tokens"]) == 8 and sum(found["tokens"]) > 1000
