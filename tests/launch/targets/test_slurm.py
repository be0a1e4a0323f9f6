"""The script by its parts, and real processes of it, with scripts in place of Slurm's programs."""

import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest
import seqio

from switch_jax.cli import main
from switch_jax.launch import commands
from switch_jax.launch.targets import slurm
from switch_jax.launch.targets.slurm import Slurm
from switch_jax.tasks.building_blocks import T5_FEATURES
from switch_jax.tasks.english import as_targets
from switch_jax.utils.errors import UserError
from tests.launch.fakes import put_on_path
from tests.trainer.worker_processes import ROOT, TINY, losses, records, without_virtual_devices
from tests.waiting import HANGS


def launch(*flags):
    given = [f"--gin_file={TINY}", "--gin.MESH_EXPERT=2", "--nodes=1", "--gpus_per_node=4", *flags]
    return main(["launch", "--on=slurm", "--job_name=base", *given])


def job(**fields):
    given = {"job_name": "base", "arguments": ("--gin_file=x.gin",), "model_dir": "runs/base"}
    return Slurm(**(given | {"nodes": 2, "gpus_per_node": 8} | fields))


def test_the_script_runs_the_doctor():
    assert " -m switch_jax doctor --multihost " in job(subcommand="doctor").script.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--gpus_per_node=8"], r"1 node of 8 GPUs: mesh .* = 2 x 2 x 1 = 4, but the number of GP"),
        (["--nodes=4", "--gpus_per_node=1"], r"data = 2 does not divide over 4 machines \(2 % 4"),
        (["--nodes=0"], r"--nodes=0: write 1 or more"),
        (["--gin.MODEL_DIR=/dev/null/run"], r"MODEL_DIR '/dev/null/run' cannot be written"),
    ],
)
def test_a_mistake_is_told_before_anything_starts(flags, message, capsys):
    assert launch("--gin.MODEL_DIR=/not/made", "--dry_run", *flags) == 2
    *_, line = capsys.readouterr().err.strip().splitlines()  # after notes
    assert re.search(message, line), line


@pytest.mark.parametrize(
    "option",
    [
        "--export=ALL,A=b,DB_PASS=s3cret",
        "--export=ALL,MY_NOTE=hf_s3cretS3CRETs3cretS3CRETs3cretS3CRET",
        "--comment=ghp_s3cretS3CRETs3cret",
    ],
)
def test_an_option_with_a_secret_is_refused_and_not_repeated(option):
    with pytest.raises(UserError) as error:
        job(sbatch_option=(option,))
    name = option.partition("=")[0]
    assert f"--sbatch_option={name}=...: this looks like a secret, and every" in str(error.value)
    assert "s3cret" not in str(error.value)


def test_options_without_a_secret_are_taken():
    plain = ("--export=ALL", "--export=NONE,OMP_NUM_THREADS=8", "--qos=high", "--exclusive")
    plain += ("--nodelist=a[1-2]", "--mem=0", "--comment=hf_datasets_nightly", "--wait-all-nodes=1")
    assert job(sbatch_option=plain).submit.argv[2:-1] == plain


@pytest.mark.parametrize(
    "option",
    [
        "--output=/logs/x", "--out=/logs/x", "--array=0-3", "--signal=KILL@60", "--no-requeue",
        "--requeue", "--ntasks-per-node=1", "--gpus=4", "--job-name=x", "--nodes=4", "--chdir=/x",
        "--error=x", "-o", "a100", "--",
    ],
)  # fmt: skip
def test_options_that_would_break_the_script_are_refused(option):
    name = re.escape(option.partition("=")[0])
    with pytest.raises(UserError, match=f"^--sbatch_option={name}: write an option .* with --"):
        job(sbatch_option=(option,))


def test_slurm_is_looked_for_before_the_start(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(slurm, "_is_of_one_machine", lambda path: False)  # a clone in /tmp too
    assert launch(f"--gin.MODEL_DIR={tmp_path / 'run'}") == 2
    assert (
        "there is no sbatch and no squeue and no tail here (docs/launch_targets.md)"
        in capsys.readouterr().err
    )


# The job waits, runs, and has left the queue; its script then has ended with the code in the file.
SQUEUE = """
touch looks; echo >> looks
case "$(wc -l < looks)" in 2) echo 7 PENDING Resources ;; 3) echo 7 RUNNING None ;; esac
"""
SBATCH = """
if [ -e refused ]; then echo "sbatch: error: invalid partition" >&2; exit 1; fi
printf '0: step 1\n%s\n' "$(cat ended)" > launched/base_7.log; echo '7;cluster'
"""


@pytest.fixture
def calls(monkeypatch, tmp_path):
    monkeypatch.setattr(slurm, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(slurm, "_SETTLE_SECONDS", 0.5)
    monkeypatch.setattr(commands, "_RETRY_SECONDS", 0.05)
    (tmp_path / "ended").write_text("switch_jax launch: job 7: exit code 130")
    return put_on_path(monkeypatch, tmp_path, squeue=SQUEUE, sbatch=SBATCH)


def test_a_job_is_put_into_the_queue_and_followed_to_its_end(calls, capfd):
    assert job().run() == 130
    said = capfd.readouterr()
    assert said.out == "0: step 1\nswitch_jax launch: job 7: exit code 130\n"
    assert "base: job 7 PENDING Resources\n" in said.err
    assert "base: job 7 RUNNING None\n" in said.err
    assert calls.read_text().count("sbatch --parsable launched/base.sbatch\n") == 1


def test_a_job_that_is_in_the_queue_is_followed(calls, tmp_path):
    commands.write_file(job().script)
    (tmp_path / "looks").write_text("\n")
    (tmp_path / "launched/base_7.log").write_text("switch_jax launch: job 7: exit code 0\n")
    assert job().run() == 0
    assert "sbatch" not in calls.read_text()


def test_another_job_of_the_same_name_is_not_mistaken_for_this_one(calls, tmp_path):
    commands.write_file(job(nodes=3).script)
    (tmp_path / "looks").write_text("\n")
    with pytest.raises(UserError, match="job 7 in the queue has the name base and another script"):
        job().run()


def test_a_job_that_ends_without_a_code_is_told(calls, tmp_path):
    (tmp_path / "ended").write_text("switch_jax launch: job 6: exit code 0")
    with pytest.raises(UserError, match="job 7 has left the queue without an exit code"):
        job().run()


@pytest.mark.parametrize(
    ("looks", "said"),
    [
        (1, "base goes on (7 PENDING Resources); `scancel --me --name=base` ends it; the same"),
        (2, "base goes on (7 RUNNING None); `scancel --me --name=base --signal=INT` ends it; the"),
    ],
)
def test_ctrl_c_names_the_command_that_ends_the_job(looks, said, calls, monkeypatch, capsys):
    def sleep(_):
        nonlocal looks
        looks -= 1
        if not looks:
            raise KeyboardInterrupt

    monkeypatch.setattr(slurm.time, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        job().run()
    assert said in capsys.readouterr().err


def test_what_slurm_refuses_is_an_error(calls, tmp_path):
    (tmp_path / "refused").touch()
    with pytest.raises(UserError, match="exit code 1 of: sbatch .*: invalid partition"):
        job().run()


def run_script(job, **variables):
    """The script as Slurm runs it: its exit code, and what it prints."""
    env = {**without_virtual_devices(), "SLURM_JOB_ID": "7", **variables}
    ended = subprocess.run(
        ["bash", "-c", job.script.text], env=env, capture_output=True, text=True, timeout=HANGS
    )
    return ended.returncode, ended.stdout


@pytest.mark.parametrize(
    ("codes", "expected", "requeues"),
    [
        ([0], 0, 0),
        ([2], 2, 0),
        ([134, 137, 0], 0, 0),
        ([134, 134, 134, 2], 134, 0),  # two restarts
        ([134, 75, 0], None, 1),
        ([143, 0], None, 1),
    ],
)
def test_exit_codes_decide_as_elsewhere(codes, expected, requeues, monkeypatch, tmp_path):
    (tmp_path / "codes").write_text("\n".join(map(str, codes)))
    next_code = "code=$(head -n 1 codes); sed -i 1d codes; exit $code"
    calls = put_on_path(monkeypatch, tmp_path, srun=next_code, scontrol="")
    code, printed = run_script(job(max_restarts=2))
    assert calls.read_text().count("scontrol requeue 7\n") == requeues
    if requeues:  # the job is over only for now
        assert (code, "launch: job 7: exit code" in printed) == (0, False)
    else:
        assert code == expected
        assert printed.endswith(f"switch_jax launch: job 7: exit code {code}\n")


@pytest.mark.parametrize(
    ("ended", "code", "expected", "requeues"),
    [
        ("75", 137, 0, 1),  # killed, as it waited for one that had stopped
        ("75 0", 134, 0, 1),
        ("130 75", 143, 130, 0),
        ("2 75", 134, 2, 0),  # a mistake, which would happen again
        ("1", 134, 134, 0),  # a crash, as the highest code says
    ],
)
def test_a_mistake_and_a_signal_count_whatever_becomes_of_the_other_processes(
    ended, code, expected, requeues, monkeypatch, tmp_path
):
    """An earlier start of the job may have left files."""
    (tmp_path / "launched").mkdir()
    for stale in (2, 75, 130):
        (tmp_path / f"launched/base_7.code_{stale}").touch()
    srun = f'for own in {ended}; do touch "$SWITCH_JAX_ENDED_WITH$own"; done; exit {code}'
    calls = put_on_path(monkeypatch, tmp_path, srun=srun, scontrol="")
    assert run_script(job(max_restarts=0))[0] == expected
    assert calls.read_text().count("scontrol requeue 7\n") == requeues


@pytest.mark.parametrize(
    ("folder", "warned"),
    [("/dev/shm/run", True), ("/a/tmp", False)],
)
def test_a_folder_that_other_nodes_may_not_see_is_told(folder, warned, capsys):
    launch("--dry_run", "--skip_storage", f"--gin.MODEL_DIR={folder}")
    said = f"warning: MODEL_DIR {folder} looks like a disk of this machine alone: all nodes"
    assert (said in capsys.readouterr().err) == warned


def test_the_folders_that_all_nodes_have_to_see_are_listed(capsys, tmp_path, monkeypatch):
    seqio.TaskRegistry.add(
        "slurm_shared",
        source=seqio.TextLineDataSource({"train": "/texts/a.txt", "validation": "gs://b/c.txt"}),
        preprocessors=[as_targets, seqio.preprocessors.tokenize],
        output_features=T5_FEATURES,
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", "/shared/.venv/bin/python3")
    run = ["--gin.MIXTURE_OR_TASK_NAME=slurm_shared", "--gin.NUM_EMBEDDINGS=32128"]
    try:
        assert launch("--dry_run", "--skip_storage", "--gin.MODEL_DIR=/runs/base", *run) == 0
    finally:
        seqio.TaskRegistry.remove("slurm_shared")
    (listed,) = re.findall("see these folders at the same paths: (.*)", capsys.readouterr().err)
    assert listed.split(", ") == [
        "/texts (data)", "/shared/.venv (environment)", f"{ROOT} (code)",
        f"{tmp_path} (current folder)", "/runs/base (MODEL_DIR)",
    ]  # fmt: skip


@pytest.mark.parametrize("folder", ["/tmp/a", "/mounted"])
def test_an_environment_of_this_machine_alone_is_refused(folder, monkeypatch):
    part = namedtuple("part", "mountpoint fstype")
    mounts = [part("/", "ext4"), part("/mounted", "tmpfs"), part("/shared", "nfs4")]
    monkeypatch.setattr(slurm.psutil, "disk_partitions", lambda all: mounts)
    monkeypatch.setattr(slurm, "check_programs", lambda steps: None)
    job(python="/shared/.venv/bin/python").preflight(None, skip_plan=True)
    job(python="/home/me/.venv/bin/python").preflight(None, skip_plan=True)  # nobody can tell
    with pytest.raises(UserError, match=f"environment {folder}/.venv is on a disk of this machine"):
        job(python=f"{folder}/.venv/bin/python").preflight(None, skip_plan=True)


@pytest.mark.parametrize(
    ("files", "folder", "named"),
    [
        ("/shared/a.txt", "/shared/run", ""),
        ("gs://texts/*.txt", "/shared/run", "gs://texts"),
        ("s3://texts/a.txt", "gs://runs/a", "gs://runs"),
        ("gs://texts/a.txt", "gs://runs/a", "gs://runs, gs://texts"),
    ],
)
def test_buckets_that_the_nodes_need_credentials_for_are_told(files, folder, named, capsys):
    """Not that of T5's vocabulary, which is public."""
    seqio.TaskRegistry.add(
        "slurm_lines",
        source=seqio.TextLineDataSource({"train": files, "validation": files}),
        preprocessors=[as_targets, seqio.preprocessors.tokenize],
        output_features=T5_FEATURES,
    )
    try:
        run = ["--gin.MIXTURE_OR_TASK_NAME=slurm_lines", "--gin.NUM_EMBEDDINGS=32128"]
        assert launch("--dry_run", "--skip_storage", f"--gin.MODEL_DIR={folder}", *run) == 0
    finally:
        seqio.TaskRegistry.remove("slurm_lines")
    said = capsys.readouterr().err
    told = re.findall("note: the nodes need credentials for (.*): the file", said)
    assert told == ([named] if named else [])


def test_a_job_that_cannot_be_requeued_ends_with_75(monkeypatch, tmp_path):
    put_on_path(monkeypatch, tmp_path, srun="exit 75", scontrol="exit 1")
    code, printed = run_script(job())
    assert (code, printed) == (75, "switch_jax launch: job 7: exit code 75\n")


def test_a_job_that_slurm_itself_puts_back_is_not_requeued_a_second_time(monkeypatch, tmp_path):
    """Slurm would start it once more after its end."""
    shown = "if [ $1 = show ]; then echo '   PreemptTime=2026-11-29T16:04:00'; fi"
    calls = put_on_path(monkeypatch, tmp_path, srun="exit 75", scontrol=shown)
    assert run_script(job()) == (75, "")
    assert calls.read_text().splitlines()[1:] == ["scontrol show job 7"]


# Two tasks on this machine, as two nodes of one GPU each, but on CPUs.
SRUN = """
until [[ $1 == */python* ]]; do shift; done
export JAX_PLATFORMS=cpu SLURM_NTASKS=2 SLURM_STEP_NODELIST=localhost SLURM_STEP_NUM_NODES=2
for i in 0 1; do
  cd "$ROOT"; SLURM_PROCID=$i SLURM_LOCALID=0 "$@" & echo $! >> "$PIDS"; pids+=" $!"
done
for pid in $pids; do wait $pid || code=$?; done
exit $code
"""


@pytest.mark.slow
def test_two_processes_find_each_other_save_at_sigterm_and_go_on(monkeypatch, tmp_path):
    """Two processes run as on nodes of a cluster, but without Slurm."""
    calls = put_on_path(monkeypatch, tmp_path, srun=SRUN, scontrol="")
    folder, pids = tmp_path / "run", tmp_path / "pids"
    number = str(random.randrange(10**6))  # JAX derives the coordinator's port from it
    variables = {"ROOT": str(ROOT), "PIDS": str(pids), "SLURM_JOB_ID": number}
    flags = [f"--gin_file={TINY}", f"--gin.MODEL_DIR={folder}", "--gin.MESH_EXPERT=1"]
    flags += ["--gin.NUM_ENCODER_LAYERS=1", "--gin.EVAL_PERIOD=None"]
    trainer = job(arguments=tuple(flags), gpus_per_node=1)
    env = {**without_virtual_devices(), **variables}
    with subprocess.Popen(["bash", "-c", trainer.script.text], env=env) as first:
        while not any(record["step"] >= 2 for record in records(folder)):
            assert first.poll() is None
            time.sleep(0.1)
        for pid in pids.read_text().split():
            os.kill(int(pid), signal.SIGTERM)
        assert first.wait(HANGS) == 0
    assert calls.read_text().count(f"scontrol requeue {number}\n") == 1
    saved = max(losses(folder))
    assert 2 <= saved < 12 and (folder / "checkpoints" / str(saved)).exists()
    code, printed = run_script(trainer, **variables)
    assert code == 0, printed
    assert set(losses(folder)) == set(range(1, 13))
    assert re.search("mesh data x expert x model = 2 x 1 x 1 of cpu", printed)
