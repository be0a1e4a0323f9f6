"""Values that try to break out of what launch prints: a real bash runs it, with stand-ins.

What comes out at the other end, in the container, has to be the job's command, word by word.
"""

import re
import subprocess

import pytest
import yaml

from switch_jax.launch import commands, tpu_hosts
from switch_jax.launch.targets.gke import Gke
from switch_jax.launch.targets.local import Local
from switch_jax.launch.targets.slurm import Slurm
from switch_jax.launch.targets.xpk import Xpk
from switch_jax.utils.errors import UserError
from tests.launch.fakes import put_on_path
from tests.launch.jobs import make_job
from tests.waiting import HANGS

BREAKS = ["\n", "\r", "\r\n", "\x85", "\u2028", "\u2029", "\v", "\f"]
VALUES = [
    *[f"x{b}{end}{b}touch pwned{b}" for b in BREAKS for end in ("END", "END_", "EOF", "'END'")],
    *["END", "\nEND\n", "", " ", "-", "--", "-rf", "--command=touch pwned", "\\", "\\\nEND", "\t"],
    *["it's", '"', "'", "''", "'; touch pwned; '", '"; touch pwned; "', "$'\\n'", "\\'", "x\n'"],
    *["$(touch pwned)", "`touch pwned`", "x\n$(touch pwned)", "; touch pwned", "| touch pwned"],
    *["x) & touch pwned; (true", "x\n                  touch pwned", "> pwned", "#", "!!", "*"],
    *["$", "$$", "$$$", "$(HOME)", "$$(HOME)", "$(JAX_PLATFORMS)", "${HOME}", "$HOME", "a$", "$("],
    *["{name}", "{}", "%s", "{{.Config}}", "a: b", "- a", "&a", "*a", "|", "~", "y", "1e3", "0o7"],
    *["\u00fc \u6587\u5b57 \U0001f642", "\u00a0", "\u202egnp", "\ufeff", "\x1b[2J", "\x7f", "\b"],
    "long words " * 300,
]
TRAIN = (*VALUES, *(f"--gin.X={value}" for value in VALUES))

# Each writes down the arguments of the calls that matter here, a NUL after each.
RECORD = "printf '%s\\0' \"$@\" > argv_{}"
DOCKER = f"""
case "$1" in
  run) {RECORD.format("docker")} ;;
  wait) echo 0 ;;
esac
[ "$1" != container ]
"""


@pytest.fixture
def stand_ins(monkeypatch, tmp_path):
    """Programs of the cloud and of its hosts; the folder that they are called in."""
    put_on_path(
        monkeypatch, tmp_path, kubectl="", gcloud="", curl="echo 3", sudo='exec "$@"',
        docker=DOCKER, python=f"[ -e argv_python ] || {RECORD.format('python')}",
        xpk=f'[ "$2" != create ] || {RECORD.format("xpk")}',
        with_secrets=RECORD.format("with_secrets"), srun=RECORD.format("srun"),
    )  # fmt: skip
    return tmp_path


def _bash(script: str, *arguments: str) -> None:
    """Runs it, and sees that it did nothing but call programs and write its own file."""
    ended = subprocess.run(
        ["bash", "-s", *arguments], input=script, capture_output=True, text=True, timeout=HANGS
    )
    assert (ended.returncode, ended.stderr) == (0, "")


def _argv(folder, program: str) -> list[str]:
    assert not list(folder.rglob("*pwned*"))
    return (folder / f"argv_{program}").read_bytes().decode().split("\0")[:-1]


def _expanded(text: str, variables: dict[str, str]) -> str:
    """What Kubernetes makes of a word of a command: $(NAME), and $$ for $."""

    def value(match: re.Match) -> str:
        if match[0] == "$$":
            return "$"
        return variables.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)]*)\)", value, text)


def as_its_pod_runs_it(container: dict) -> list[str]:
    """The container's command as its pod runs it."""
    variables = {"HOME": "/root"}
    for variable in container["env"]:
        variables[variable["name"]] = _expanded(variable["value"], variables)
    return [_expanded(word, variables) for word in container["command"]]


def test_kubernetes_expands_as_its_documentation_says():
    words = ["$(A)", "$$(A)", "$$$(A)", "$(B)", "$A", "$$", "x$", "$(A", "$$$$"]
    assert [_expanded(word, {"A": "1"}) for word in words] == [
        "1", "$(A)", "$1", "$(B)", "$A", "$", "x$", "$(A", "$$"
    ]  # fmt: skip


def test_hosts_of_tpu_vms_run_the_command_and_nothing_else(stand_ins):
    job = make_job("v5e-16", arguments=TRAIN)
    _bash(commands.render("base", [*job.commands(), *job.cleanup_commands()]))
    script = (stand_ins / "launched/base.sh").read_text()
    assert script == tpu_hosts.script(job).text
    _bash(script, "base")
    argv = _argv(stand_ins, "docker")
    assert argv[argv.index(job.image) + 1 :] == list(job.command)


def test_a_pod_of_gke_runs_the_command_and_nothing_else(stand_ins):
    job = make_job("2xv5e-16", Gke, arguments=TRAIN)
    _bash(commands.render("base", [*job.commands(), *job.cleanup_commands()]))
    text = (stand_ins / "launched/base.yaml").read_text()
    (slices,) = yaml.safe_load(text)["spec"]["replicatedJobs"]
    (container,) = slices["template"]["spec"]["template"]["spec"]["containers"]
    assert as_its_pod_runs_it(container) == list(job.command)
    variables = {variable["name"]: variable["value"] for variable in container["env"]}
    assert variables["LIBTPU_INIT_ARGS"].startswith("--xla_tpu_")


# From xpk's src/xpk/core/docker_container.py: where its --command and --env come to stand.
XPK_CONTAINER = """
- name: train
  env:{env}
  command:
  - bash
  - -c
  - |
    echo XPK Start: $(date);
    ({command}) & PID=$!;
    wait $PID;
    EXIT_CODE=$?;
    exit $EXIT_CODE
"""


def test_a_pod_of_xpk_runs_the_command_and_nothing_else(stand_ins):
    job = make_job("2xv5e-16", Xpk, arguments=TRAIN, secret=("A_KEY",))
    _bash(commands.render("base", [*job.commands(), *job.cleanup_commands()]))
    given = _argv(stand_ins, "xpk")
    (command,) = [word.removeprefix("--command=") for word in given if "--command=" in word]
    variables = [word.removeprefix("--env=").split("=", 1) for word in given if "--env=" in word]
    env = "".join(f'\n  - name: {name}\n    value: "{value}"' for name, value in variables)
    (container,) = yaml.safe_load(XPK_CONTAINER.format(env=env, command=command))
    _, _, script = as_its_pod_runs_it(container)
    _bash(script)
    ran = ["with_secrets", *_argv(stand_ins, "with_secrets")]
    assert ran == list(tpu_hosts.container_command(job))


def test_a_rehearsal_runs_the_command_and_nothing_else(stand_ins):
    printed = Local(model_dir="runs/x", arguments=TRAIN).describe()
    assert len(printed.splitlines()) == 4
    _bash(printed)
    assert tuple(_argv(stand_ins, "python")[3:-3]) == TRAIN


def test_slurm_s_processes_run_the_command_and_nothing_else(stand_ins):
    job = Slurm(
        job_name="base",
        model_dir="x",
        nodes=2,
        gpus_per_node=8,
        arguments=TRAIN,
        python="/a b/python",
    )
    _bash(job.script.text)
    argv = _argv(stand_ins, "srun")
    command = ["/a b/python", "-m", "switch_jax", "train", "--multihost", *TRAIN]
    assert argv[argv.index(command[0]) :] == command


def test_a_file_with_the_line_that_would_end_it_is_written_whole(stand_ins):
    text = "first\nEND\ntouch pwned\nEND_\r\n END\nlast\n"
    _bash(commands.render("x", [commands.File("made/it's.sh", text, "any file")]))
    assert (stand_ins / "made/it's.sh").read_bytes() == text.encode()
    assert not (stand_ins / "pwned").exists()


def test_a_command_in_an_error_is_one_line(stand_ins):
    (stand_ins / "bin/gcloud").write_text("#!/bin/bash\nexit 3\n")
    with pytest.raises(UserError) as error:
        commands.run_command(commands.Command(("gcloud", "a b", "x\ny\u2028"), "any"))
    assert str(error.value) == r"exit code 3 of: gcloud 'a b' $'x\ny\xe2\x80\xa8'"


def test_what_the_system_does_not_start_is_one_line(stand_ins):
    with pytest.raises(UserError, match="^gcloud cannot be started: Argument list too long$"):
        commands.run_command(commands.Command(("gcloud", "x" * 10**6), "any"))
