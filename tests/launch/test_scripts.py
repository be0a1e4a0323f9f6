"""What runs on the hosts and in the container, by a real bash with the hosts' programs made up."""

import subprocess

import pytest

from switch_jax.launch import tpu_hosts
from tests.launch.fakes import change, put_on_path
from tests.launch.jobs import make_job
from tests.waiting import HANGS

# A container is the file `job`: it holds its label.
DOCKER = """
case "$*" in
  "container inspect"*) cat job 2> /dev/null ;;
  run*) if [ -e broken ]; then exit 125; fi
    label=${2#--label=switch_jax_job=}; echo "$label" > job; echo 0123456789 ;;
  logs*) echo first; echo second >&2 ;;
  wait*) cat code ;;
esac
[ "$1" != container ] || [ -e job ]
"""


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """The calls of a host whose number in its slice is 3."""
    (tmp_path / "code").write_text("75\n")
    return put_on_path(
        monkeypatch, tmp_path, docker=DOCKER, curl="echo 3", sudo='exec "$@"', gcloud=""
    )


def _run(job) -> subprocess.CompletedProcess:
    script = tpu_hosts.script(job).text
    return subprocess.run(
        ["bash", "-s", "base-1"], input=script, capture_output=True, text=True, timeout=HANGS
    )


LINES = "[base-1 3] first\n[base-1 3] second\n[base-1 3] exit code 75\n"


def test_a_host_starts_the_container_and_ends_with_its_code(calls):
    ended = _run(make_job("2xv5e-16"))
    assert (ended.returncode, ended.stdout) == (75, LINES)
    (run,) = [line for line in calls.read_text().splitlines() if line.startswith("docker run")]
    assert run.endswith(" ghcr.io/me/switch_jax:1 switch_jax train --multihost --gin_file=x.gin")
    for flag in ("--detach", "--init", "--name=base", "--privileged", "--net=host"):
        assert f" {flag} " in run
    assert "gcloud" not in calls.read_text()  # the image is not on Google's registry


def test_a_broken_connection_finds_the_container_again(calls):
    job = make_job("2xv5e-16")
    _run(job)
    ended = _run(job)
    assert (ended.returncode, ended.stdout) == (75, LINES)
    text = calls.read_text()
    assert text.count("\ndocker run") == 1
    assert text.count("\ndocker logs --follow --tail all") == 1
    assert text.count("\ndocker logs --follow --tail 20") == 1


def test_another_job_of_the_same_name_is_not_mistaken_for_this_one(calls, tmp_path):
    (tmp_path / "job").write_text("0badcafe\n")
    ended = _run(make_job("2xv5e-16"))
    assert ended.returncode == tpu_hosts._OTHER_JOB
    assert "[base-1 3] another job runs as base\n" in ended.stdout
    assert ended.stdout.endswith(f"[base-1 3] exit code {tpu_hosts._OTHER_JOB}\n")
    assert "docker run" not in calls.read_text()


def test_a_container_that_cannot_start_is_told_to_the_launcher(calls, tmp_path):
    (tmp_path / "broken").touch()
    ended = _run(make_job("2xv5e-16"))
    assert (ended.returncode, ended.stdout) == (125, "[base-1 3] exit code 125\n")


def test_without_its_number_a_host_goes_by_its_name(calls, tmp_path):
    (tmp_path / "bin/curl").write_text("#!/bin/bash\nexit 22\n")
    (tmp_path / "bin/hostname").write_text("#!/bin/bash\necho t1v-w-3\n")
    (tmp_path / "bin/hostname").chmod(0o755)
    assert _run(make_job("2xv5e-16")).stdout == LINES.replace("1 3", "1 t1v-w-3")


def test_the_script_may_be_overwritten_while_it_follows(calls, tmp_path):
    script = tmp_path / "base.sh"
    script.write_text(tpu_hosts.script(make_job("2xv5e-16")).text)
    change(tmp_path, "docker", "logs*)", f"logs*) printf 'exit 9\\n%.0s' {{1..999}} > {script};")
    command = ["bash", script, "base-1"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=HANGS)
    assert (ended.returncode, ended.stdout) == (75, LINES)
