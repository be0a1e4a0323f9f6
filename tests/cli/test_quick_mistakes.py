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
        (
            ["train", DEMO, "--dryrun", "--x"],
            "switch_jax train: unrecognized arguments: --dryrun --x (did you mean --dry_run?)",
        ),
        (
            ["train", DEMO, "--gni.NUM_EXPERTS=4"],
            "switch_jax train: unrecognized arguments: --gni.NUM_EXPERTS=4 (did you mean "
            "--gin.NUM_EXPERTS?)",
        ),
        (["tasks", "--gni.X=4"], "switch_jax tasks: unrecognized arguments: --gni.X=4"),
        (
            ["train", DEMO, "--gin.NUM_EXPERTS", "4"],
            "switch_jax train: unrecognized arguments: 4 (write --gin_file=FILE, or "
            "--gin.NAME=VALUE, in quotes if it has spaces)",
        ),
        (
            ["train", "--gin.TASK_FEATURE_LENGTHS={inputs:", "512,", "targets:", "114}"],
            "switch_jax train: unrecognized arguments: 512, targets: 114} (write --gin_file=FILE, "
            "or --gin.NAME=VALUE, in quotes if it has spaces)",
        ),
        # The shell has made two arguments of {'inputs':64,'targets':16}.
        (
            [
                "train",
                DEMO,
                *(f"--gin.TASK_FEATURE_LENGTHS={x}" for x in ("inputs:64", "targets:16")),
            ],
            "switch_jax train: TASK_FEATURE_LENGTHS = 'targets:16': it must be a dict, as in "
            "{'inputs': 512, 'targets': 114}, which a shell needs in quotes",
        ),
        # No abbreviation of a flag is a flag.
        (["plan", DEMO, "--topol=v5p-8"], "switch_jax plan: the following arguments are required"),
        *(
            ([command, f"{flag}=--"], f"switch_jax: {flag}=--: write a value after the =")
            for command, flag in (
                *(("train", "--gin_file"), ("launch", "--gin_search_paths")),
                *(("tasks", "--split"), ("plan", "--topology")),
            )
        ),
        (["trian"], "switch_jax: argument command: invalid choice: 'trian'"),
    ],
)
def test_a_mistake_in_a_flag_is_one_line(arguments, message, capsys):
    assert refused(capsys, *arguments).startswith(message)
