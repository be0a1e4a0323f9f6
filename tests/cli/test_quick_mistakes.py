"""Mistakes in arguments and gin are reported before TensorFlow, which takes seconds, is loaded."""

import subprocess
import sys

import pytest

from switch_jax.cli import COMMANDS, main

PROGRAM = """
import sys
from switch_jax.cli import main
try:
    code = main(sys.argv[1:])
except SystemExit as end:  # argparse's
    code = end.code
slow = {"tensorflow", "seqio", "flax"} & set(sys.modules)
print("exit code", code, "loaded", sorted(slow), file=sys.stderr)
"""
DEMO = "--gin_file=runs/demo_switch.gin"
SLICE = "--topology=v5p-8"


def _last_lines(*arguments):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True).stderr.splitlines()


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_quick(command):
    assert _last_lines(command, "--help") == ["exit code 0 loaded []"]


@pytest.mark.parametrize("command", [["train"], ["launch", "--on=local"], ["plan", SLICE]])
@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (["--no_such_flag"], "unrecognized arguments: --no_such_flag"),
        (["--gin_TRAIN_STEPS=3"], "to set a macro write --gin.TRAIN_STEPS=3"),
        (
            [DEMO, "--num_experts=8", "--max_steps", "100"],
            "--max_steps 100; to set a macro write --gin.NUM_EXPERTS=8 --gin.TRAIN_STEPS=100",
        ),
        (["--gin_file=no_such.gin"], "no gin file no_such.gin"),
        ([DEMO, "--gin.NUM_EXPERT=4"], "no gin file knows a macro NUM_EXPERT; did you mean NUM_EX"),
        (
            ["--gin_file=runs/demo_dense.gin", "--gin.NUM_EXPERTS=8"],
            "NUM_EXPERTS = 8 is for a model with experts, and models/t5_demo.gin is dense: ",
        ),
        ([DEMO, "--gin.NUM_EXPERTS='x'"], "NUM_EXPERTS = 'x': it must be a whole number"),
    ],
)
def test_a_mistake_is_quick(command, mistake, message):
    *lines, last = _last_lines(*command, *mistake)
    assert message in lines[-1]
    assert last == "exit code 2 loaded []"


@pytest.mark.parametrize("command", [["train"], ["launch", "--on=local"]])
def test_a_rate_of_another_optimizer_is_refused_quickly(command):
    flags = ["--gin.OPTIMIZER=muon", "--gin.LR_SCHEDULE=cosine"]
    *lines, last = _last_lines(*command, DEMO, *flags, "--dry_run")
    assert lines[-1].endswith(
        "the learning rate is 0.6 at its peak (LR_SCHEDULE = 'cosine' with LEARNING_RATE = 0.6), "
        "and OPTIMIZER = 'muon' trains with 3e-05 to 0.1: add --gin_file=runs/muon.gin after the "
        "file of the run, or set LEARNING_RATE; to train with it all the same, write "
        "--gin.LEARNING_RATE=0.6"
    )
    assert last == "exit code 2 loaded []"


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["train", DEMO, "--dry-run"], "--dry-run; did you mean --dry_run?"),
        (["train", DEMO, "--dryrun"], "--dryrun; did you mean --dry_run?"),
        (["train", "--gin-file=a.gin"], "--gin-file=a.gin; did you mean --gin_file?"),
        (["report", "runs/a", "--outptu=a.html"], "--outptu=a.html; did you mean --output?"),
        (["status", "runs/a", "--jsn"], "--jsn; did you mean --json?"),
        (["infer", "runs/a", "--num-beams", "4"], "--num-beams; did you mean --num_beams?"),
        # The flag is required, and so is one of --input and --task.
        (["plan", DEMO, "--topolgy=v5p-8"], "--topolgy=v5p-8; did you mean --topology?"),
        (["infer", "runs/a", "--imput=-"], "--imput=-; did you mean --input?"),
        # No flag of the command is near, or it is the beginning of one.
        (["status", "runs/a", "--output=b"], "--output=b"),
        (["plan", DEMO, "--topol=v5p-8", "--no_such"], "--no_such"),
    ],
)
def test_a_flag_that_is_near_is_suggested(arguments, meant, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith(f"error: unrecognized arguments: {meant}\n")
