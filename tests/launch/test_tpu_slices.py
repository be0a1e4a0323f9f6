"""The loop that makes slices, runs the job and starts it again, with a gcloud that is a script."""

import re
import types

import pytest

from switch_jax.exit_codes import DONE, FAILED, INTERRUPTED, MISTAKE, UNREACHABLE
from switch_jax.launch import commands, restarts, tpu_hosts, tpu_slices
from switch_jax.launch.targets.queued_resource import QueuedResource
from switch_jax.launch.targets.tpu_vm import TpuVm
from switch_jax.utils.errors import UserError
from tests.launch.fakes import GONE, change, fails_once, put_on_path
from tests.launch.jobs import make_job

# `state` is what a describe prints. An attempt prints what the file attempt_N says, and ends so.
GCLOUD = f"""
case "$*" in
  *" describe "*) if [ -s state ]; then cat state; else echo "{GONE}" >&2; exit 1; fi ;;
  *" delete "*) : > state ;;
  *" create "*)
    if [ -e refused ]; then echo FAILED > state
    elif [ -e no_capacity ]; then rm no_capacity; echo "no more capacity" >&2; exit 1
    elif [[ "$*" == *queued-resources* ]]; then echo ACTIVE > state
    else echo READY > state; fi ;;
  *"--command=bash base.sh"*)
    all="$*"; node=${{all##*base.sh }}; node=${{node%% *}}
    n=$(cat "attempts_$node" 2> /dev/null || echo 0); echo $((n + 1)) > "attempts_$node"
    source ./attempt_$n ;;
  *"docker kill"*) touch killed ;;
esac
"""


@pytest.fixture
def calls(monkeypatch, tmp_path, gcs_server):
    monkeypatch.setattr(tpu_slices, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(tpu_slices, "_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(commands, "_RETRY_SECONDS", 0.05)
    monkeypatch.setattr(restarts, "_RETRY_SECONDS", [0.05])
    return put_on_path(monkeypatch, tmp_path, gcloud=GCLOUD)


def _script(folder, *attempts: str) -> None:
    for number, text in enumerate(attempts):
        (folder / f"attempt_{number}").write_text(text)


def _ends(*codes: int, shell: int | None = None) -> str:
    """An attempt in which worker i ends with codes[i], and ssh with the first that is not 0."""
    lines = [f'echo "[$node {i}] exit code {code}"' for i, code in enumerate(codes)]
    code = next((c for c in codes if c), 0) if shell is None else shell
    return "\n".join([*lines, f"exit {code}"])


def test_a_job_that_is_done(calls, tmp_path, capfd):
    _script(tmp_path, "echo '[base 0] step 1'; echo '[base 1] step 1'\n" + _ends(0, 0, 0, 0))
    assert make_job("v5e-16", TpuVm).run() == 0
    verbs = re.findall(r"tpu-vm (\w+)", calls.read_text())
    assert verbs == ["describe", "describe", "create", "describe", "scp", "ssh", "ssh"]
    assert "bash" in (tmp_path / "launched/base.sh").read_text()
    out = capfd.readouterr().out
    assert "[base 0] step 1\n" in out and "[base 1] step 1\n" in out


@pytest.mark.parametrize(
    ("first", "code", "starts"),
    [
        (_ends(1, 1, 2, 1), 2, 1),  # a mistake of one host alone, which ssh does not tell
        (_ends(1, 134, 134, 134), 0, 2),
        (_ends(2, 2, 2, shell=255), 0, 2),  # one could not be reached, so others could not join it
    ],
)
def test_exit_codes_decide(first, code, starts, calls, tmp_path):
    _script(tmp_path, first, _ends(0, 0, 0, 0))
    assert make_job("v5e-16", TpuVm, max_restarts=1).run() == code
    assert calls.read_text().count("--command=bash base.sh base") == starts


def test_crashes_are_counted_until_there_is_a_new_checkpoint(calls, monkeypatch, bucket_path):
    writes = ["run.json", "checkpoints/10/commit_success.txt", "checkpoints/20/half_of_it"]

    def crash(job):
        (bucket_path / writes.pop(0)).write_text("")
        return 1

    monkeypatch.setattr(tpu_hosts, "run", crash)
    assert make_job("v5e-16", TpuVm, max_restarts=1, model_dir=str(bucket_path)).run() == 1
    assert writes == []


def test_preempted_slices_are_asked_for_again_and_do_not_count(calls, tmp_path):
    gone = "echo SUSPENDED > state; exit 255"
    _script(tmp_path, gone, gone, _ends(0, 0, 0, 0))
    assert make_job("v5e-16", max_restarts=0, spot=True).run() == 0
    text = calls.read_text()
    assert text.count("queued-resources create base") == 3
    assert text.count("queued-resources delete base") == 2
    assert "--node-id=base --accelerator-type=v5litepod-16" in text


def test_several_slices_are_one_job(calls, tmp_path, capfd):
    _script(tmp_path, _ends(75, 75, 75, 75), _ends(0, 0, 0, 0))
    assert make_job("2xv5e-16", QueuedResource).run() == 0
    text, printed = calls.read_text(), capfd.readouterr().out
    assert "--node-count=2 --node-prefix=base --accelerator-type=v5litepod-16" in text
    for node in ("base-0", "base-1"):
        assert text.count(f"tpu-vm scp launched/base.sh {node}:") == 2
        assert text.count(f"--command=bash base.sh {node}") == 2
        assert f"[{node} 3] exit code 75\n" in printed


def test_a_request_that_fails_is_told(calls, tmp_path):
    (tmp_path / "refused").touch()
    with pytest.raises(UserError, match="base, v5e-16 in us-west4-a, is FAILED: it will not be"):
        make_job("v5e-16", QueuedResource).run()


def test_slices_that_there_are_none_of_are_an_error_at_first(calls, tmp_path, capfd):
    (tmp_path / "no_capacity").touch()
    with pytest.raises(UserError, match="exit code 1 of: gcloud compute tpus tpu-vm create base"):
        make_job("v5e-16", TpuVm).run()
    assert "no more capacity" in capfd.readouterr().err


def test_slices_that_there_are_none_of_after_a_preemption_are_asked_for_again(
    calls, tmp_path, capfd
):
    gone = "echo PREEMPTED > state; touch no_capacity; exit 255"
    _script(tmp_path, gone, _ends(0, 0, 0, 0))
    assert make_job("v5e-16", TpuVm, max_restarts=0, spot=True).run() == 0
    assert calls.read_text().count("tpu-vm create base") == 3
    assert "tpu-vm create base" in capfd.readouterr().err


def test_a_request_that_fails_after_a_preemption_is_made_again(calls, tmp_path):
    change(tmp_path, "gcloud", "echo FAILED > state", "echo FAILED > state; rm refused")
    _script(tmp_path, "echo SUSPENDED > state; touch refused; exit 255", _ends(0, 0, 0, 0))
    assert make_job("v5e-16", QueuedResource, max_restarts=0).run() == 0
    assert calls.read_text().count("queued-resources create base") == 3


def test_slices_that_no_time_makes_ready_are_told(calls, tmp_path):
    (tmp_path / "state").write_text("STOPPED")
    told = r"base, v5e-16 in us-west4-a, is STOPPED: it will not be READY by itself \(`gcloud.*"
    with pytest.raises(UserError, match=told + "tpu-vm delete base"):
        make_job("v5e-16", TpuVm).run()


def test_ctrl_c_in_the_queue_says_so_and_how_to_leave_it(calls, monkeypatch, tmp_path):
    (tmp_path / "state").write_text("WAITING_FOR_RESOURCES")

    def press(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(tpu_slices, "time", types.SimpleNamespace(sleep=press))  # not of all
    told = r"goes on waiting for its slices \(WAITING_FOR_RESOURCES\); `gcloud .* delete base .*`"
    with pytest.raises(KeyboardInterrupt, match=told):
        make_job("v5e-16", QueuedResource).run()


def test_hosts_that_wait_for_one_that_failed_are_stopped(calls, monkeypatch, tmp_path):
    monkeypatch.setattr(tpu_hosts, "FAILURE_GRACE", 0.1)
    wait = 'echo "[base 0] exit code 2"; until [ -e killed ]; do sleep 0.05; done\n'
    _script(tmp_path, wait + _ends(2, 137, 137, 137))
    assert make_job("v5e-16", TpuVm).run() == 2  # and not 137, which came of the kill
    assert "--command=sudo docker kill base" in calls.read_text()


def test_a_host_that_hangs_for_good_holds_up_nothing(calls, monkeypatch, tmp_path):
    monkeypatch.setattr(tpu_hosts, "FAILURE_GRACE", 0.1)
    monkeypatch.setattr(tpu_hosts, "_KILL_GRACE", 0.3)
    hangs = 'echo "[base 0] exit code 134"; exec sleep 10000'
    _script(tmp_path, hangs, hangs)
    assert make_job("v5e-16", TpuVm, max_restarts=0).run() == UNREACHABLE


def test_a_network_that_is_away_for_a_while_ends_nothing(calls, tmp_path):
    _script(tmp_path, "touch away; exit 255", _ends(0, 0, 0, 0))
    change(tmp_path, "gcloud", "\ncase", f"\n{fails_once('*describe*')}\ncase")
    assert make_job("v5e-16", TpuVm).run() == 0
    assert not (tmp_path / "away").exists()


def test_gcloud_s_own_complaint_is_shown(monkeypatch, tmp_path):
    put_on_path(monkeypatch, tmp_path, gcloud='echo "ERROR: You are not logged in" >&2; exit 1')
    with pytest.raises(UserError, match=r"exit code 1 of: gcloud .*: ERROR: You are not logged in"):
        make_job("v5e-16", TpuVm).run()


DELETE = "gcloud compute tpus queued-resources delete base --zone=us-west4-a --project=my-project"


@pytest.mark.parametrize(
    ("release", "code", "deleted"),
    [
        ("never", DONE, False),
        ("done", DONE, True),
        ("done", MISTAKE, False),
        ("done", INTERRUPTED, False),
        ("done", 134, False),
        ("always", DONE, True),
        ("always", MISTAKE, True),
        ("always", 134, True),
    ],
)
def test_slices_are_deleted_at_the_end_if_asked_for(
    release, code, deleted, calls, monkeypatch, tmp_path
):
    _script(tmp_path, _ends(code, 0, 0, 0))
    told = []
    monkeypatch.setattr(tpu_slices, "log", lambda text: told.append((text, calls.read_text())))
    assert make_job("v5e-16", QueuedResource, release=release, max_restarts=0).run() == code
    assert (DELETE in calls.read_text()) == deleted
    if deleted:
        *_, (before, called), (after, _) = told
        assert before == f"base has ended with exit code {code}: `{DELETE} --force --quiet`"
        assert DELETE not in called, "it is said before"
        assert after == "base: the slices are deleted; gs://my-bucket/runs/base stays"
    else:
        assert "deleted" not in told[-1][0]


def test_slices_are_kept_for_a_job_that_starts_again(calls, tmp_path):
    _script(tmp_path, _ends(134, 0, 0, 0), _ends(75, 75, 75, 75), _ends(0, 0, 0, 0))
    assert make_job("v5e-16", TpuVm, release="always").run() == 0
    text = calls.read_text()
    assert text.count("--command=bash base.sh base") == 3
    assert text.splitlines()[-1].startswith("gcloud compute tpus tpu-vm delete base ")
    assert text.count(" delete ") == 1


@pytest.mark.parametrize(("code", "expected"), [(DONE, FAILED), (MISTAKE, MISTAKE)])
def test_a_deletion_that_fails_is_told(code, expected, calls, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr(commands, "_TRIES", 2)
    change(tmp_path, "gcloud", '*" delete "*) : > state ;;', '*" delete "*) echo no >&2; exit 1 ;;')
    _script(tmp_path, _ends(code, 0, 0, 0))
    assert make_job("v5e-16", TpuVm, release="always").run() == expected
    (*_, last) = capfd.readouterr().err.splitlines()
    assert re.search(r"slices may still be there, and cost money: exit code 1 of: .*: no$", last)
    assert calls.read_text().count("tpu-vm delete base") == 2


def test_slices_with_another_job_are_never_deleted(calls, tmp_path, capfd):
    other = tpu_hosts._OTHER_JOB
    _script(tmp_path, _ends(other, other, other, other))
    with pytest.raises(UserError, match="another job runs as base: end it first, or launch under"):
        make_job("v5e-16", TpuVm, release="always").run()
    assert "delete" not in calls.read_text()
    assert "launch: --release=always deletes nothing: the end of" in capfd.readouterr().err


def test_after_ctrl_c_slices_are_kept(calls, monkeypatch, tmp_path, capfd):
    def press(job):
        raise KeyboardInterrupt

    monkeypatch.setattr(tpu_hosts, "run", press)
    with pytest.raises(KeyboardInterrupt):
        make_job("v5e-16", TpuVm, release="always").run()
    assert "delete" not in calls.read_text()
    assert "launch: --release=always deletes nothing: the end of" in capfd.readouterr().err
