"""The registry of targets, and what `switch_jax launch` needs of each."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from switch_jax.cli import launch
from switch_jax.launch import targets
from switch_jax.launch.targets import TARGETS


def test_every_module_of_the_folder_is_a_target():
    modules = {file.stem for file in Path(targets.__file__).parent.glob("[!_]*.py")}
    assert modules == {name.replace("-", "_") for name in TARGETS}
    assert modules == {type(t).__module__.rpartition(".")[2] for t in TARGETS.values()}


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_s_flags_are_flags_of_launch(name):
    parser = argparse.ArgumentParser()
    launch.add_arguments(parser)
    needed = [f"--{flag}=1" for flag in TARGETS[name].required_flags]
    known = vars(parser.parse_args([f"--on={name}", *needed]))
    assert {*TARGETS[name].required_flags, *TARGETS[name].optional_flags} <= known.keys()


def test_arguments_are_checked_before_jax_and_tensorflow_load():
    code = (
        "import sys; from switch_jax.cli import main;"
        "code = main(['launch', '--on=gke', '--gin_file=runs/demo_switch.gin']);"
        "print(code, *{'jax', 'tensorflow', 'seqio', 'gin'} & set(sys.modules), 'loaded')"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "--on=gke needs --topology --job_name --project --zone --image" in ended.stderr
    assert ended.stdout == "2 loaded\n"
