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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", SLICE, "--no_such_flag"], "unrecognized arguments: --no_such_flag"),
        (["train", DEMO, "--num_experts=8"], "unrecognized arguments: --num_experts=8"),
        (["launch", "--on=local", "--gin_file=no_such.gin"], "no gin file no_such.gin"),
        (["train", DEMO, "--gin.NUM_EXPERT=4"], "knows a macro NUM_EXPERT; did you mean NUM_EX"),
        (["plan", SLICE, DEMO, "--gin.NUM_EXPERTS='x'"], "NUM_EXPERTS = 'x': it must be a whole"),
        (["launch", "--on=local", DEMO, "--gin.NUM_EXPERTS='x'"], "NUM_EXPERTS = 'x': it must be"),
    ],
)
def test_a_mistake_is_quick(arguments, message):
    *lines, last = _last_lines(*arguments)
    assert message in lines[-1]
    assert last == "exit code 2 loaded []"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", DEMO, "--dry-run"], "switch_jax: unrecognized arguments: --dry-run"),
        # No abbreviation of a flag is a flag.
        (["train", "--gin_fil=x"], "switch_jax: unrecognized arguments: --gin_fil=x"),
        (["plan", DEMO, SLICE, "--num_slices=2"], "switch_jax: unrecognized arguments: --num_s"),
        (["plan", DEMO, "--topol=v5p-8"], "switch_jax plan: the following arguments are required"),
        (["trian"], "switch_jax: argument command: invalid choice: 'trian'"),
    ],
)
def test_a_mistake_in_a_flag_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    (line,) = capsys.readouterr().err.splitlines()
    assert end.value.code == 2 and line.startswith(message)
