"""A task of a user's own, that of the README, in a folder outside the package."""

import os
import re
import subprocess
import sys
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
# One process for both commands; the folder is not on the path, as it is not for a console script.
SCRIPT = """
import sys
sys.path.remove("")
from switch_jax.cli import main
assert main(["train", "--gin_search_paths=configs", "--gin_file=mine.gin", "--gin.TRAIN_STEPS=7",
             "--dry_run"]) == 0
assert main(["tasks", "my_span_corruption", "--import", "my_tasks", "--split", "train"]) == 0
"""
LINES = "In the beginning there was a short text of a user's own, of many lines.\n" * 40


def module() -> str:
    """The lines of my_tasks.py, which are indented by four spaces."""
    section = re.search(r"^## Register a task\n(.*?)^## ", README.read_text(), re.M | re.S)[1]
    code = re.search(r"^    # my_tasks\.py\n(?:    .*\n|\n)*", section, re.M)[0]
    return re.sub(r"^    ", "", code, flags=re.M)


def test_it_is_shown_and_checked_with_a_gin_file_of_the_user_s_own(tmp_path):
    (tmp_path / "runs").mkdir()  # as an earlier run leaves it; the packaged runs/ is found even so
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/mine.gin").write_text(
        "import my_tasks\n"
        "include 'runs/demo_switch.gin'\n"
        "MIXTURE_OR_TASK_NAME = 'my_span_corruption'\n"
        "MODEL_DIR = 'here'\n"
        "NUM_EXPERTS = 4\n"
    )
    (tmp_path / "my_tasks.py").write_text(module())
    for split in ("train", "valid"):
        (tmp_path / f"my_{split}.txt").write_text(LINES)
    # Without the virtual devices of these tests: the mesh of two has to make its own.
    env = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    # The user's module imports seqio first; TensorFlow is kept silent all the same.
    assert (done.returncode, done.stderr) == (0, "")
    assert "ModelConfig.num_experts = %NUM_EXPERTS" in done.stdout
    assert "denoise" not in done.stdout, "a function of T5, which makes the example that is read"
    # What set each macro, and over what; the last one first.
    earlier = "models/switch_demo.gin, models/switch_base.gin"
    assert f"\nNUM_EXPERTS = 4  # configs/mine.gin, over {earlier}\n" in done.stdout
    assert "\nTRAIN_STEPS = 7  # --gin.TRAIN_STEPS, over runs/demo.gin, runs/" in done.stdout
    assert "my_span_corruption, train, example 1\n" in done.stdout
    assert "<extra_id_0>" in done.stdout
