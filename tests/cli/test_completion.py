"""The completion scripts: those of shells that are installed are run."""

import shlex
import shutil
import subprocess

import pytest

from switch_jax.cli import COMMANDS, completion
from switch_jax.gin_config.packaged import packaged_files

TRY = """
COMP_WORDS=({words}) COMP_CWORD={last}
_switch_jax
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def script():
    return completion.script("bash")


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        (["t"], ["train", "tasks"]),
        (["train", "--gin_f"], ["--gin_file"]),
        (
            ["train", "--gin_file", "=", "models/t5_st"],
            ["models/t5_study.gin", "models/t5_study_large.gin"],
        ),
        (["train", "--gin_file", "models/t5_sm"], ["models/t5_small.gin"]),
        (["train", "--gin.TRAIN_S"], ["--gin.TRAIN_STEPS="]),
        (["plan", "--gin.MESH"], ["--gin.MESH_DATA=", "--gin.MESH_EXPERT=", "--gin.MESH_MODEL="]),
        (["train", "--gin"], ["--gin_file", "--gin_search_paths", "--gin_bindings", "--gin."]),
        (["train", "--gin.PACK", "=", "False", "--dry"], ["--dry_run"]),
        (["status", "--gin."], []),
        (["train", "--gin_file", "=", "a.gin", "--gin_file", "=", "mi"], ["mine.gin"]),
        (["launch", "--on", "=", "x"], ["xpk"]),
        (["launch", "--on", "=", "gke", "--sp"], ["--spot"]),
        (["report", "fol"], ["folder"]),
        (["completion", "z"], ["zsh"]),
    ],
)
def test_bash_completes(script, tmp_path, words, completed):
    """`words` are those that bash makes of a line, which it splits at every =."""
    (tmp_path / "mine.gin").touch()
    (tmp_path / "mine.txt").touch()
    (tmp_path / "folder").mkdir()
    line = ["switch_jax", *words]
    attempt = TRY.format(words=shlex.join(line), last=len(line) - 1)
    done = subprocess.run(
        ["bash", "-c", script + attempt], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout.split(), done.stderr) == (completed, "")


def test_after_the_equals_sign_bash_completes_from_the_start(script, tmp_path):
    attempt = TRY.format(words="switch_jax train --gin_file =", last=3)
    done = subprocess.run(
        ["bash", "-c", script + attempt], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.stdout.split() == list(packaged_files())


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_others_name_all_commands_and_packaged_files(shell, script):
    text = completion.script(shell)
    for name in (*COMMANDS, *packaged_files()):
        assert name in text and name in script
    for flag in ("gin_file", "gin.TRAIN_STEPS"):
        assert {"zsh": f"--{flag}=[", "fish": f"-l {flag}"}[shell] in text


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("switch_jax t", ["tasks", "train"]),
        (
            "switch_jax train --gin_file=models/t5_st",
            ["--gin_file=models/t5_study.gin", "--gin_file=models/t5_study_large.gin"],
        ),
        ("switch_jax train --gin_file=a.gin --gin_file=mi", ["--gin_file=mine.gin"]),
        ("switch_jax plan --gin.MESH_", [f"--gin.MESH_{x}" for x in ("DATA", "EXPERT", "MODEL")]),
        ("switch_jax launch --on=x", ["--on=xpk"]),
    ],
)
def test_fish_completes(tmp_path, line, completed):
    (tmp_path / "mine.gin").touch()
    asked = f"source; complete -C {shlex.quote(line)}"
    done = subprocess.run(
        ["fish", "--no-config", "-c", asked],
        input=completion.script("fish"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    found = [shown.split("\t")[0] for shown in done.stdout.splitlines()]
    assert (found, done.stderr) == (completed, "")


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh_takes_the_script_from_eval():
    """As `switch_jax completion zsh` says to use it; its own completion needs a terminal."""
    made = 'autoload -Uz compinit; compinit -u -D; eval "$(cat)"; echo ${_comps[switch_jax]}'
    done = subprocess.run(
        ["zsh", "-f", "-c", made], input=completion.script("zsh"), capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("_shtab_switch_jax\n", "")
