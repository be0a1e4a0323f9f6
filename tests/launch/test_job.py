"""Mistakes in a run and in its flags: each is one clear line before anything is started."""

import re

import pytest

from switch_jax.cli import main
from switch_jax.launch.targets.gke import Gke
from switch_jax.launch.targets.queued_resource import QueuedResource
from switch_jax.launch.targets.tpu_vm import TpuVm
from switch_jax.utils.errors import UserError
from tests.cli.mistakes import refused
from tests.launch.jobs import DEMO, LARGE_TABLE, ON_VM, make_job

RUN = [*ON_VM, *DEMO, "--dry_run"]  # a later --on is taken


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"job_name": "Demo"}, r"--job_name=Demo: write at most 40 small letters"),
        ({"job_name": "a" * 41}, r"--job_name=a{41}: write at most 40 small"),
        ({"zone": "us-west4"}, r"--zone=us-west4: write a zone, as europe-west4-a"),
        ({"image": "docker.pkg.dev/p/i/switch_jax"}, r"write HOST/PATH:TAG or HOST/PATH@sha256"),
        ({"image": "docker.pkg.dev/p/i/s:latest"}, r"'latest' may be another image on each host"),
        ({"image": "x/y:1 --net"}, r"--image='x/y:1 --net': write HOST/PATH:TAG"),
        ({"model_dir": "runs/demo"}, r"MODEL_DIR 'runs/demo': .*write gs://BUCKET/FOLDER"),
        ({"model_dir": "gs://my-bucket"}, r"write a folder of the bucket"),
        ({"input_urls": (("A", "gs://b/../x"),)}, r"A .*without '//', '\.' and"),
        ({"topology": "2xv5e-16"}, r"several slices find each other by --on=queued-resource"),
        ({"topology": "tpu7x-128"}, r"--on=tpu-vm: Google Cloud offers tpu7x on GKE only"),
        ({"topology": "v5e:1x2"}, r"1x2 is not a number of whole hosts, of 4 chips"),
        ({"topology": "v5p:2x8x8", "target": QueuedResource}, r"as v5p-256 .* the shape 4x4x8; "),
        ({"topology": "v3-32", "target": Gke}, r"--on=gke: v3 is not supported on GKE"),
        ({"spot": True, "reserved": True}, r"--spot and --reserved are two kinds of capacity"),
        ({"max_restarts": -1}, r"--max_restarts=-1: write 0 to 1,000,000"),
    ],
)
def test_a_mistake_in_a_flag_is_one_clear_line(fields, message):
    with pytest.raises(UserError, match=message):
        make_job(**({"topology": "v5e-16", "target": TpuVm} | fields))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--doctor", "--change_task"], r"--change_task is for training: leave it out with"),
        (["--gin.MESH_EXPERT=4"], r"v5e-16 is 16 chips: .* 2 x 4 x 1 = 8, but the number of TPU"),
        (
            ["--on=queued-resource", "--topology=2xv5e-16", "--gin.MESH_DATA=1",
             "--gin.MESH_EXPERT=32", "--gin.NUM_EXPERTS=32"],
            r"mesh data = 1 does not divide over 2 slices",
        ),
        (["--gin.BATCH_SIZE=60"], r"batch size 60 does not divide over data x expert = 16"),
        (LARGE_TABLE, r"state alone take 16\.\d GiB of each chip of v5e-16, which has 16\.0 GiB"),
        # What the hosts cannot read.
        (["--seqio_additional_cache_dirs=gs://data/b,c"], r"cache_dirs 'c': the hosts see"),
        (["--tfds_data_dir=s3://my-bucket/x"], r"--tfds_data_dir 's3.*use Google Cloud's buckets"),
        (["--gin.INITIAL_CHECKPOINT_PATH=runs/a"], r"INITIAL_CHECKPOINT_PATH 'runs/a': .*gs://"),
        (["--gin_file=runs/distill.gin", "--gin.TEACHER_DIR=runs/a"], r"TEACHER_DIR 'runs/a'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_run_is_one_clear_line(arguments, message, capsys):
    line = refused(capsys, *RUN, *arguments)
    assert re.search(message, line), line


def test_a_teacher_that_only_the_hosts_read_is_told(capsys):
    distil = ["--gin_file=runs/distill.gin", "--gin.INITIALIZE_FROM_TEACHER=False"]
    assert main([*RUN, *distil, "--gin.TEACHER_DIR=gs://teachers/large"]) == 0
    assert "the checks on this machine leave out TEACHER_DIR" in capsys.readouterr().err
