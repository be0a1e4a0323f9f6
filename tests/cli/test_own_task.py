"""The README's own task, from a folder of its user: shown, and trained on."""

import json
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
assert main(["tasks", "my_span_corruption", "--import", "my_tasks", "--split", "train"]) == 0
assert main(["train", "--gin_file=my_run.gin", "--gin.MIXTURE_OR_TASK_NAME=my_span_corruption",
             "--gin.MODEL_DIR=runs/mine"]) == 0
"""
RUN = """
import my_tasks
include 'runs/demo_switch.gin'
NUM_ENCODER_LAYERS = 1
NUM_DECODER_LAYERS = 1
BATCH_SIZE = 8
GROUP_SIZE = 32
EVAL_STEPS = 1
TRAIN_STEPS = 2
LOG_PERIOD = 1
"""
LINES = "In the beginning there was a short text of a user's own, of many lines.\n" * 40


def module() -> str:
    """The lines of my_tasks.py, which are indented by four spaces."""
    section = re.search(r"^## Register a task\n(.*?)^## ", README.read_text(), re.M | re.S)[1]
    code = re.search(r"^    # my_tasks\.py\n(?:    .*\n|\n)*", section, re.M)[0]
    return re.sub(r"^    ", "", code, flags=re.M)


def test_the_lines_of_the_readme_are_a_task_that_is_shown_and_trained_on(tmp_path):
    (tmp_path / "my_tasks.py").write_text(module())
    (tmp_path / "my_train.txt").write_text(LINES)
    (tmp_path / "my_valid.txt").write_text(LINES)
    (tmp_path / "my_run.gin").write_text(RUN)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # The user's module imports seqio first; TensorFlow is kept silent all the same.
    assert "tensorflow" not in done.stderr and "WARNING" not in done.stderr
    assert "my_span_corruption, train, example 1\n" in done.stdout
    assert "<extra_id_0>" in done.stdout
    records = (tmp_path / "runs" / "mine" / "metrics.jsonl").read_text().splitlines()
    steps = [record["step"] for record in map(json.loads, records) if record["kind"] == "train"]
    assert steps == [1, 2]


def test_a_gin_file_that_imports_a_task_starts_tensorflow_silently(tmp_path):
    (tmp_path / "my_tasks.py").write_text("import seqio\n")
    (tmp_path / "my_run.gin").write_text("import my_tasks\ninclude 'runs/demo_switch.gin'\n")
    script = "import sys; sys.path.remove(''); from switch_jax.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", script, "train", "--gin_file=my_run.gin", "--dry_run"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
