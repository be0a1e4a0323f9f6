"""Mistakes in a run and in its flags: each is one clear line before anything is started."""

import re

import pytest

from switch_jax.cli import main
from tests.cli.mistakes import refused
from tests.launch.jobs import DEMO, LARGE_TABLE, ON_VM

RUN = [*ON_VM, *DEMO, "--dry_run"]  # a later --on is taken
VM, QUEUED, GKE = "--on=tpu-vm", "--on=queued-resource", "--on=gke"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([VM, "--job_name=Demo"], r"--job_name=Demo: write at most 40 small letters"),
        ([VM, "--job_name=demo-"], r"--job_name=demo-: .* no hyphen last"),
        ([VM, f"--job_name={'a' * 41}"], r"--job_name=a{41}: write at most 40 small"),
        ([VM, "--job_name=a\nb"], r"--job_name=\$'a\\nb': write at most 40 small letters"),
        ([VM, "--zone=us-west4"], r"--zone=us-west4: write a zone, as europe-west4-a"),
        ([VM, "--image=us-docker.pkg.dev/p/i/switch_jax"], r"write HOST/PATH:TAG or HOST/PATH@sha"),
        ([VM, "--image=us-docker.pkg.dev/p/i/s:latest"], r"'latest' may be another image on each"),
        ([VM, "--image=x/y:1 --net"], r"--image='x/y:1 --net': write HOST/PATH:TAG"),
        ([VM, "--image=$(x)docker.pkg.dev/y:1"], r"write HOST/PATH:TAG"),
        ([VM, "--image="], r"--on=tpu-vm needs --image; see docs/launch_targets.md"),
        ([VM, "--gin.MODEL_DIR=runs/demo"], r"MODEL_DIR 'runs/demo': .*gs://BUCKET/FOLDER"),
        ([VM, "--gin.MODEL_DIR=s3://a-bucket/x"], r"MODEL_DIR 's3.*use Google Cloud's buckets"),
        ([VM, "--gin.MODEL_DIR=gs://my-bucket"], r"write a folder of the bucket"),
        ([VM, "--tfds_data_dir=gs://my-bucket/../x"], r"--tfds_data_dir .*without '//', '\.' and"),
        ([VM, "--tfds_data_dir=s3://my-bucket/x"], r"see no folder of this machine, and use Goog"),
        ([VM, "--topology=v5e-17"], r"no TPU topology 'v5e-17' .*known are v5e-1,"),
        ([VM, "--topology=2xv5e-16"], r"several slices find each other by --on=queued-resource"),
        ([VM, "--topology=tpu7x-128"], r"--on=tpu-vm: Google Cloud offers tpu7x on GKE only"),
        ([VM, "--topology=v5e:1x2"], r"1x2 is not a number of whole hosts, of 4 chips"),
        ([QUEUED, "--topology=v5p:2x8x8"], r"as v5p-256 .* the shape 4x4x8; for another shape"),
        ([GKE, "--cluster=pods", "--topology=v3-32"], r"--on=gke: v3 is not supported on GKE"),
        (["--on=xpk", "--cluster=p", "--service_account=a"], r"no use for --service_account"),
        ([VM, "--spot", "--reserved"], r"--spot and --reserved are two kinds of capacity"),
        ([VM, "--max_restarts=-1"], r"--max_restarts=-1: write 0 to 1,000,000"),
        ([VM, "--env=A"], r"--env=\.\.\.: write --env=NAME=VALUE"),
        ([VM, "--doctor", "--change_task"], r"--change_task is for training: leave it out with"),
        ([VM, "--env=WANDB_API_KEY=x1"], r"WANDB_API_KEY=\.\.\.: .* --secret=NAME keeps it in the"),
        ([VM, "--secret=A_KEY=x1"], r"--secret=A_KEY=\.\.\.: write the name alone, as in --sec"),
        ([VM, "--secret=a$(b)"], r"--secret=\.\.\.: write the name alone, as in --secret=WAND"),
        # Mistakes in the run, which fits neither its slices nor its data.
        (
            ["--gin.MESH_EXPERT=4"],
            r"data x expert x model = 2 x 4 x 1 = 8, but the number of TPU devices is 16",
        ),
        (
            ["--topology=v5p-256"],
            r"v5p-256 is 128 chips: .* = 16, but the number of TPU devices is 128",
        ),
        (["--seqio_additional_cache_dirs=gs://data/b,c"], r"cache_dirs 'c': the hosts see"),
        (
            ["--on=queued-resource", "--topology=2xv5e-16", "--gin.MESH_DATA=1",
             "--gin.MESH_EXPERT=32", "--gin.NUM_EXPERTS=32"],
            r"mesh data = 1 does not divide over 2 slices",
        ),
        (["--gin.BATCH_SIZE=60"], r"batch size 60 does not divide over data x expert = 16"),
        (["--gin.VOCABULARY='nowhere.model'"], r"no SentencePiece model is found at .*/nowhere"),
        (["--gin.INITIAL_CHECKPOINT_PATH=runs/a"], r"INITIAL_CHECKPOINT_PATH 'runs/a': .*gs://"),
        (["--gin_file=runs/distill.gin", "--gin.TEACHER_DIR=runs/a"], r"TEACHER_DIR 'runs/a'"),
        (LARGE_TABLE, r"state alone take 16\.\d GiB of each chip of v5e-16, which has 16\.0 GiB"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_line(arguments, message, capsys):
    line = refused(capsys, *RUN, *arguments)
    assert re.search(message, line), line


def test_a_teacher_that_only_the_hosts_read_is_told(capsys):
    distil = ["--gin_file=runs/distill.gin", "--gin.INITIALIZE_FROM_TEACHER=False"]
    assert main([*RUN, VM, *distil, "--gin.TEACHER_DIR=gs://teachers/large"]) == 0
    assert "the checks on this machine leave out TEACHER_DIR" in capsys.readouterr().err


def test_what_follows_launch_is_what_train_gets(capsys):
    typed = ["--gin_search_paths=a,b", "--gin_file=runs/demo_switch.gin", "--gin.NUM_EXPERTS=4"]
    typed += ["--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}"]
    typed += ["--seqio_additional_cache_dirs=gs://my-data/cache"]
    assert main([*RUN[:7], *RUN[8:], "--on=xpk", "--cluster=pods", *typed]) == 0
    assert (
        "switch_jax train --multihost --gin_search_paths=a,b --gin_file=runs/demo_switch.gin "
        "--gin.MODEL_DIR=gs://my-bucket/runs/demo --gin.MESH_DATA=2 --gin.MESH_EXPERT=8 "
        "--gin.GROUP_SIZE=64 "
        "--gin.DATA_STREAMS=4 --gin.NUM_EXPERTS=4 "
    ) in capsys.readouterr().out


def test_on_spot_chips_xpk_may_start_a_job_again_more_often(capsys):
    """It counts preemptions, too."""
    xpk = [*RUN, "--on=xpk", "--cluster=pods"]
    for flags, restarts in (
        ([], 3), (["--spot"], 100), (["--spot", "--max_restarts=7"], 7), (["--spot", "--doctor"], 0)
    ):  # fmt: skip
        assert main([*xpk, *flags]) == 0
        printed = capsys.readouterr()
        assert f"    --max-restarts={restarts} \\\n" in printed.out
        told = "note: with xpk every preemption is a restart: --max_restarts=100\n"
        assert (told in printed.err) == (restarts == 100)


@pytest.mark.parametrize(
    ("on", "reserved"),
    [
        ("gke", "--reservation-affinity=specific \\\n    --reservation=RESERVATION\n"),
        ("xpk", "--num-slices=1 \\\n    --reservation=RESERVATION\n"),
    ],
)
def test_reserved_chips_are_asked_for_where_the_nodes_are_made(on, reserved, capsys):
    for flags in ([], ["--reserved"]):
        assert main([*RUN, f"--on={on}", "--cluster=pods", *flags]) == 0
        printed = capsys.readouterr().out
        assert printed.count("RESERVATION is the name of yours") == bool(flags)
        assert (reserved in printed) == bool(flags)


def test_the_doctor_runs_once_on_every_host(capsys):
    assert main([*RUN, GKE, "--cluster=pods", "--skip_storage", "--doctor"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"- switch_jax\n +- doctor\n +- --multihost\n", printed)
    assert "maxRestarts: 0\n" in printed
