"""Mistakes in arguments and gin are reported before TensorFlow, which takes seconds, is loaded."""

import json
import subprocess
import sys

import pytest

from switch_jax.cli import COMMANDS
from tests.cli.mistakes import refused

# Runs one command after the other in a process; what one has loaded, all that follow have.
PROGRAM = """
import json, sys
from switch_jax.cli import main
for arguments in json.loads(sys.argv[1]):
    try:
        code = main(arguments)
    except SystemExit as end:  # argparse's
        code = end.code
    slow = {"tensorflow", "seqio", "flax"} & set(sys.modules)
    print("exit code", code, "loaded", sorted(slow), file=sys.stderr)
"""
DEMO = "--gin_file=runs/demo_switch.gin"
SLICE = "--topology=v5p-8"
MISTAKES = [
    (["plan", SLICE, "--no_such_flag"], "unrecognized arguments: --no_such_flag"),
    (["launch", "--on=local", "--gin_file=no_such.gin"], "no gin file no_such.gin"),
    (["train", DEMO, "--gin.NUM_EXPERT=4"], "knows a macro NUM_EXPERT (did you mean NUM_EX"),
    (["plan", SLICE, DEMO, "--gin.NUM_EXPERTS='x'"], "NUM_EXPERTS = 'x': it must be a whole"),
    (["launch", "--on=local", DEMO, "--gin.NUM_EXPERTS='x'"], "NUM_EXPERTS = 'x': it must be"),
]


def test_help_and_mistakes_are_quick():
    cases = [[command, "--help"] for command in COMMANDS]
    cases += [arguments for arguments, _ in MISTAKES]
    command = [sys.executable, "-c", PROGRAM, json.dumps(cases)]
    lines = subprocess.run(command, capture_output=True, text=True).stderr.splitlines()
    for _ in COMMANDS:
        assert lines.pop(0) == "exit code 0 loaded []"
    assert lines[1::2] == ["exit code 2 loaded []"] * len(MISTAKES)
    for (_, message), line in zip(MISTAKES, lines[::2], strict=True):
        assert message in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", DEMO, "--dry-run"], "switch_jax: unrecognized arguments: --dry-run"),
        # No abbreviation of a flag is a flag.
        (["plan", DEMO, "--topol=v5p-8"], "switch_jax plan: the following arguments are required"),
        (["trian"], "switch_jax: argument command: invalid choice: 'trian'"),
    ],
)
def test_a_mistake_in_a_flag_is_one_line(arguments, message, capsys):
    assert refused(capsys, *arguments).startswith(message)
