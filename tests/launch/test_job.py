"""Mistakes in the description of a run: each is one clear line before anything is started."""

import re

import pytest

from switch_jax.cli import main

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
        ([VM, "--gin.MODEL_DIR=runs/demo"], r"MODEL_DIR = 'runs/demo': .*gs://BUCKET/FOLDER"),
        ([VM, "--gin.MODEL_DIR=gs://my-bucket"], r"write a folder of the bucket, as in gs://my-b"),
        ([VM, "--gin.MODEL_DIR=gs://My_Bucket/x"], r"no bucket has the name 'My_Bucket'"),
        ([VM, "--topology=v5e-17"], r"no TPU topology 'v5e-17'; known are v5e-1, v5e-4"),
        ([VM, "--topology=2xv5e-16"], r"several slices find each other by --on=queued-resource"),
        ([VM, "--topology=tpu7x-128"], r"tpu7x on GKE alone: write --on=gke"),
        ([VM, "--topology=v5e:1x2"], r"1x2 is not a number of whole hosts, of 4 chips"),
        ([QUEUED, "--topology=v5p:2x8x8"], r"name v5p-256 it would be 4x4x8; another shape"),
        ([VM, "--cluster=pods"], r"--cluster=pods is for --on=gke and xpk"),
        ([VM, "--spot", "--reserved"], r"--spot and --reserved are two kinds of capacity"),
        ([VM, "--max_restarts=-1"], r"--max_restarts=-1: write 0 to 1,000,000"),
        ([VM, "--service_account=trainer"], r"with --on=tpu-vm it is an e-mail address"),
        ([GKE], r"--on=gke needs --cluster=NAME"),
        ([GKE, "--cluster=Pods"], r"--cluster=Pods: write at most 40 small"),
        ([GKE, "--cluster=pods", "--zone=us-west4"], r"a regional cluster would make a"),
        (["--on=xpk", "--cluster=p", "--service_account=a"], r"xpk's pods act as the nodes"),
        ([GKE, "--cluster=pods", "--reserved"], r"on GKE it is the node pool that is made from"),
        ([GKE, "--cluster=pods", "--topology=v3-32"], r"v3 goes by --on=tpu-vm or queued-resource"),
        ([GKE, "--cluster=p", "--service_account=a@b"], r"--on=gke it is a Kubernetes service acc"),
        ([VM, "--image="], r"--on=tpu-vm needs --image; see docs/launching.md"),
        ([VM, "--gin.NUM_EXPERT=4"], r"no gin file knows a macro NUM_EXPERT; did you mean NUM_EXP"),
        (["--on=tpu"], r"invalid choice: 'tpu'"),
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


def test_buckets_are_those_of_the_run_and_of_what_it_starts_from(capsys):
    more = ["--gin.INITIAL_CHECKPOINT_PATH=gs://a-bucket/runs/base"]
    assert main(["launch", *RUN, VM, *more]) == 0
    printed = capsys.readouterr().out
    assert "\n    with_gcs \\\n    a-bucket \\\n    my-bucket \\\n    -- \\\n" in printed


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


def test_on_this_machine_it_is_a_rehearsal(capsys, tmp_path):
    here = ["--on=local", "--process_count=2", f"--gin.MODEL_DIR={tmp_path / 'run'}"]
    assert main(["launch", "--gin_file=runs/demo_switch.gin", *here, "--dry_run"]) == 0
    assert capsys.readouterr().out.count(" train --gin_file=runs/demo_switch.gin --gin.MODEL_") == 2
