"""Mistakes in the description of a run: each is one clear line before anything is started."""

import re

import pytest

from switch_jax.cli import main
from switch_jax.launch.targets.tpu_vm import TpuVm
from tests.launch.jobs import make_job

RUN = [
    "--gin_file=runs/demo_switch.gin", "--gin.MODEL_DIR=gs://my-bucket/runs/demo",
    "--topology=v5e-16", "--job_name=demo", "--project=my-project", "--zone=us-west4-a",
    "--image=us-docker.pkg.dev/my-project/images/switch_jax:1", "--dry_run",
    "--gin.MESH_DATA=8", "--gin.GROUP_SIZE=64",
]  # fmt: skip
VM, QUEUED, GKE = "--on=tpu-vm", "--on=queued-resource", "--on=gke"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([VM, "--job_name=Demo"], r"--job_name=Demo: write at most 40 small letters"),
        ([VM, "--job_name=demo-"], r"--job_name=demo-: .* no hyphen last"),
        ([VM, f"--job_name={'a' * 41}"], r"these are 41 characters"),
        ([VM, "--project=p"], r"--project=p: write the project's ID, of 6 to 30"),
        ([VM, "--zone=us-west4"], r"--zone=us-west4: write a zone, as in --zone=us-west4-a"),
        ([VM, "--zone=uswest"], r"--zone=uswest: write a zone"),
        ([VM, "--image=switch_jax"], r"--image=switch_jax: write HOST/PATH:TAG"),
        ([VM, "--image=us-docker.pkg.dev/p/i/switch_jax"], r"write HOST/PATH:TAG or HOST/PATH@sha"),
        ([VM, "--image=us-docker.pkg.dev/p/i/s:latest"], r"'latest' may be another image on each"),
        ([VM, "--gin.MODEL_DIR=runs/demo"], r"MODEL_DIR 'runs/demo': .*gs://BUCKET/FOLDER"),
        ([VM, "--gin.MODEL_DIR=s3://a-bucket/x"], r"MODEL_DIR 's3.*use Google Cloud's buckets"),
        ([VM, "--gin.MODEL_DIR=gs://my-bucket"], r"write a folder of the bucket, as in gs://my-b"),
        ([VM, "--gin.MODEL_DIR=gs://My_Bucket/x"], r"no bucket has the name 'My_Bucket'"),
        ([VM, "--topology=v5e-17"], r"no TPU topology 'v5e-17'; known are v5e-1, v5e-4"),
        ([VM, "--topology=2xv5e-16"], r"several slices find each other by --on=queued-resource"),
        ([VM, "--topology=tpu7x-128"], r"tpu7x on GKE only: write --on=gke"),
        ([VM, "--topology=v5e:1x2"], r"1x2 is not a number of whole hosts, of 4 chips"),
        ([QUEUED, "--topology=v5p:2x8x8"], r"as v5p-256 .* the shape 4x4x8; for another shape"),
        ([VM, "--cluster=pods"], r"-vm has no use for --cluster \(it is for --on=gke or xpk\)"),
        ([VM, "--spot", "--reserved"], r"--spot and --reserved are two kinds of capacity"),
        ([VM, "--max_restarts=-1"], r"--max_restarts=-1: write 0 to 1,000,000"),
        ([VM, "--service_account=trainer"], r"with --on=tpu-vm it is an e-mail address"),
        ([GKE], r"--on=gke needs --cluster; see docs/launching.md"),
        ([GKE, "--cluster=Pods"], r"--cluster=Pods: write at most 40 small"),
        ([GKE, "--cluster=pods", "--zone=us-west4"], r"a regional cluster would make a"),
        (["--on=xpk", "--cluster=p", "--service_account=a"], r"xpk's pods use the account of"),
        ([GKE, "--cluster=pods", "--reserved"], r"on GKE the node pool is created from a res"),
        ([GKE, "--cluster=pods", "--topology=v3-32"], r"v3 is not supported on GKE; write --on"),
        ([GKE, "--cluster=p", "--service_account=a@b"], r"--on=gke it is a Kubernetes service acc"),
        ([VM, "--image="], r"--on=tpu-vm needs --image; see docs/launching.md"),
        ([VM, "--gin.NUM_EXPERT=4"], r"no gin file knows a macro NUM_EXPERT; did you mean NUM_EXP"),
        (["--on=tpu"], r"invalid choice: 'tpu'"),
        ([VM, "--job_name=a\nb"], r"--job_name=\$'a\\nb': write at most 40 small letters"),
        ([VM, "--job_name=-x"], r"--job_name=-x: write at most 40 small letters"),
        ([VM, "--job_name=--"], r"--job_name=--: write a value after the ="),
        ([VM, "--project=-x:abcdef"], r"--project=-x:abcdef: write the project's ID"),
        ([VM, "--project=my-project "], r"--project='my-project ': write the project's ID"),
        ([VM, "--zone=us-west\u0664-a"], r"--zone=.us-west\u0664-a.: write a zone"),
        ([VM, "--zone=us-west4-a\n"], r"--zone=\$'us-west4-a\\n': write a zone"),
        ([VM, "--image=-x/y:1"], r"--image=-x/y:1: write HOST/PATH:TAG"),
        ([VM, "--image=x/-y:1"], r"--image=x/-y:1: write HOST/PATH:TAG"),
        ([VM, "--image=x/y:1 --net"], r"--image='x/y:1 --net': write HOST/PATH:TAG"),
        ([VM, "--service_account=-a@b"], r"=-a@b: with --on=tpu-vm it is an e-mail address, as in"),
        ([VM, "--service_account=a@b"], r"=a@b: with --on=tpu-vm it is an e-mail address, as in"),
        ([VM, "--service_account=me@gmail.com"], r"as in NAME@PROJECT\.iam\.gserviceaccount\.com"),
        ([VM, "--service_account="], r"--service_account='': with --on=tpu-vm it is an e-mail"),
        ([QUEUED, "--service_account=a@-b.iam.gserviceaccount.com"], r"it is an e-mail address"),
        ([GKE, "--cluster=p", f"--service_account={'a' * 64}"], r"of at most 63 small letters"),
        ([GKE, f"--cluster={'p' * 41}"], r"write at most 40 small letters, digits and hyphens"),
        ([GKE, "--cluster=p\u2028q"], r"--cluster=\$'p\\xe2\\x80\\xa8q': write at most 40"),
        ([VM, "--gin.MODEL_DIR=gs://my-bucket/../x"], r"MODEL_DIR .*without '//', '\.' and '\.\.'"),
        ([VM, "--gin.MODEL_DIR=gs://my-bucket//x"], r"MODEL_DIR .*without '//', '\.' and '\.\.'"),
        ([VM, "--gin.MODEL_DIR=gs://my-bucket/x*"], r"take \* \? \[ \] # in a bucket for patterns"),
        ([VM, "--gin.INITIAL_CHECKPOINT_PATH=gs://x/y"], r"INITIAL_CHECKPOINT_PATH .*name 'x'"),
        ([VM, "--tfds_data_dir=gs://my-bucket/../x"], r"--tfds_data_dir .*without '//', '\.' and"),
        ([VM, "--tfds_data_dir=s3://my-bucket/x"], r"see no folder of this machine, and use Goog"),
        ([VM, "--gin.VOCABULARY='s3://my-bucket/x'"], r"VOCABULARY 's3://my-bucket/x': the hosts"),
        ([QUEUED, "--topology=1001xv5e-16"], r"'1001xv5e-16' is 1,001 slices of 16 chips: write 1"),
        ([QUEUED, "--topology=1000000000xv5e-16"], r"no TPU topology '1000000000xv5e-16'"),
        ([VM, "--topology=v5e:999x999"], r"is 1 slice of 998,001 chips: .* of 1 to 9,216 chips"),
        ([VM, "--topology=v5e:0x4"], r"'v5e:0x4' is 1 slice of 0 chips: write 1 to 1,000 slices"),
        ([VM, f"--topology=v5e-{'9' * 5000}"], r"no TPU topology 'v5e-9+'"),
        ([VM, "--env=A"], r"--env=\.\.\.: write --env=NAME=VALUE"),
        ([VM, "--env=A B=c"], r"--env='A B'=\.\.\.: write --env=NAME=VALUE"),
        ([VM, "--env=A=\udcff"], r"--env=A=\.\.\.: this is not UTF-8; write it in UTF-8$"),
        ([VM, "--env=WANDB_API_KEY=x1"], r"WANDB_API_KEY=\.\.\.: .* --secret=WANDB_API_KEY in its"),
        ([VM, "--env=my_token=x1"], r"my_token=.*; write --secret=MY_TOKEN in its place, which"),
        ([VM, "--env=_1_TOKEN=x1"], r"_1_TOKEN=.* every printed command would show it$"),
        ([VM, "--secret=A_KEY=x1"], r"--secret=A_KEY=\.\.\.: write the name alone, as in --sec"),
        ([VM, "--secret=a$(b)"], r"--secret=\.\.\.: write the name alone, as in --secret=WAND"),
        ([VM, "--label=Team=a"], r"--label=Team=a: write --label=NAME=VALUE, each of at most 63"),
        ([VM, "--label=a=b=c"], r"--label=a=b=c: write --label=NAME=VALUE"),
        ([VM, "--network=-a"], r"--network=-a: write its name, or for that of another project pr"),
        ([GKE, "--cluster=p", "--network=projects/host/global/networks/n"], r"needs the names of"),
        (["--on=xpk", "--cluster=p", "--subnetwork=projects/host/x/n"], r"-subnetwork=projects/ho"),
        (["--on=xpk", "--cluster=p", "--label=a=b"], r"xpk has no use for --label \(it is for"),
        ([VM, "--max_restarts=1000001"], r"--max_restarts=1000001: write 0 to 1,000,000"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(arguments, message, capsys):
    try:
        code = main(["launch", *RUN, *arguments])
    except SystemExit as stop:  # argparse's own errors
        code = stop.code
    printed = capsys.readouterr()
    assert code == 2
    assert re.search(message, printed.err)
    assert len(printed.err.strip().splitlines()) == 1 or "usage" in printed.err
    assert printed.out == ""


def test_the_job_may_write_the_bucket_of_its_run_and_read_the_others(capsys):
    more = ["--gin.INITIAL_CHECKPOINT_PATH=gs://a-bucket/runs/base", "--gin_file=runs/distill.gin"]
    more += ["--gin.TEACHER_DIR=gs://teachers/large", "--gin.INITIALIZE_FROM_TEACHER=False"]
    more += ["--tfds_data_dir=gs://my-bucket/tfds"]
    more += ["--seqio_additional_cache_dirs=gs://cached/a,gs://cached/b"]
    assert main(["launch", *RUN, VM, *more]) == 0
    printed = capsys.readouterr()
    roles = r"binding gs://(\S+) .*\n.*\n    --role=roles/storage\.(\S+)"
    assert dict(re.findall(roles, printed.out)) == {
        "my-bucket": "objectUser",
        **dict.fromkeys(("a-bucket", "cached", "teachers"), "objectViewer"),
    }
    assert printed.out.count("buckets create") == printed.out.count("create gs://my-bucket") == 1
    assert "the checks on this machine leave out TEACHER_DIR" in printed.err


def test_what_follows_launch_is_what_train_gets(capsys):
    typed = ["--gin_search_paths=a,b", "--gin_file=runs/demo_switch.gin", "--gin.NUM_EXPERTS=4"]
    typed += ["--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}"]
    typed += ["--seqio_additional_cache_dirs=gs://my-data/cache"]
    assert main(["launch", *RUN[1:], "--on=xpk", "--cluster=pods", *typed]) == 0
    assert (
        "switch_jax train --multihost --gin_search_paths=a,b --gin_file=runs/demo_switch.gin "
        "--gin.MODEL_DIR=gs://my-bucket/runs/demo --gin.MESH_DATA=8 --gin.GROUP_SIZE=64 "
        "--gin.NUM_EXPERTS=4 "
    ) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--process_count=0", "--process_count=0: write 1 to 256, which share this machine's"),
        ("--process_count=1000000", "--process_count=1000000: write 1 to 256"),
        ("--max_restarts=-1", "--max_restarts=-1: write 0 to 1,000,000"),
        ("--gin.MODEL_DIR=~no-such-user/x", "MODEL_DIR '~no-such-user/x': ~no-such-user is the"),
        ("--gin.MODEL_DIR=", "MODEL_DIR '': the path is empty; write one"),
    ],
)
def test_a_mistake_in_a_rehearsal_is_one_clear_line(flag, message, capsys):
    run = ["launch", "--on=local", "--gin_file=runs/demo_switch.gin", "--dry_run"]
    assert main([*run, flag]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize(
    "account",
    [
        "trainer@my-project.iam.gserviceaccount.com",
        "123456789012-compute@developer.gserviceaccount.com",
        "my-project@appspot.gserviceaccount.com",
        "trainer@my-project.example.com.iam.gserviceaccount.com",
    ],
)
def test_accounts_of_google_s_forms_are_taken(account):
    TpuVm().check_job(make_job("v5e-16", service_account=account))


def test_on_this_machine_it_is_a_rehearsal(capsys, tmp_path):
    here = ["--on=local", "--process_count=2", f"--gin.MODEL_DIR={tmp_path / 'run'}"]
    assert main(["launch", "--gin_file=runs/demo_switch.gin", *here, "--dry_run"]) == 0
    assert capsys.readouterr().out.count(" train --gin_file=runs/demo_switch.gin --gin.MODEL_") == 2


def test_the_doctor_runs_once_on_every_host(capsys):
    assert main(["launch", *RUN, GKE, "--cluster=pods", "--skip_storage", "--doctor"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"- switch_jax\n +- doctor\n +- --multihost\n", printed)
    assert "maxRestarts: 0\n" in printed
