"""What `switch_jax launch --dry_run` prints, word by word, and whether shells and clusters take it.

After a wished-for change: `switch_jax launch FLAGS > tests/launch/golden/NAME.sh`, and read the
difference.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from kubeflow_trainer_api.models.jobset_v1alpha2_job_set import JobsetV1alpha2JobSet

from switch_jax.cli import main
from tests.docs.pages import commands, in_words
from tests.launch.jobs import DEMO

GOLDEN = Path(__file__).with_name("golden")
LAUNCH = Path(__file__).parents[2] / "launch"
BASE = "--gin_file=models/switch_base.gin"
CLOUD = [
    "--job_name=base",
    "--project=my-project",
    "--image=us-docker.pkg.dev/my-project/images/switch_jax:1",
    "--gin_file=runs/pretrain.gin",
    "--gin.MODEL_DIR=gs://my-bucket/runs/base",
    "--gin.MIXTURE_OR_TASK_NAME=c4_span_corruption",
    "--gin.TRAIN_STEPS=100000",
    "--tfds_data_dir=gs://my-bucket/tfds",
]
BASE16 = [flag.replace("base", "base16") for flag in CLOUD]
FOUR_SLICES = [
    "--topology=4xv5e-256",
    "--zone=us-west4-a",
    "--cluster=pods",
    "--gin.MESH_EXPERT=128",
    "--gin.GROUP_SIZE=1024",
    "--gin.DECODER_GROUP_SIZE=256",
    "--gin.DATA_STREAMS=256",
]
DEMO_JOB = [
    "--job_name=demo",
    "--project=my-project",
    "--zone=us-west4-a",
    f"--image=ghcr.io/me/switch_jax@sha256:{64 * '0'}",  # by its digest, so it is not built
    *DEMO,
    "--secret=WANDB_API_KEY",
]
CASES = {
    "4_local": [
        "--on=local", "--process_count=4", "--gin_file=runs/demo_switch.gin", "--gin.MESH_DATA=2",
        "--gin.MESH_EXPERT=2", "--gin.GROUP_SIZE=256", "--gin.DATA_STREAMS=4",
        "--gin.MODEL_DIR=runs/rehearsal", "--gin.TRAIN_STEPS=100",
    ],
    "v5e-16_tpu-vm": [
        "--gin_file=models/switch_base_16.gin", *BASE16, "--on=tpu-vm", "--topology=v5e-16",
        "--zone=us-west4-a", "--gin.BATCH_SIZE=256", "--gin.MESH_EXPERT=16",
    ],
    "v5p-256_queued-resource": [
        BASE, *CLOUD, "--on=queued-resource", "--topology=v5p-256", "--zone=us-east5-a", "--spot",
        "--service_account=trainer@my-project.iam.gserviceaccount.com", "--gin.MESH_EXPERT=128",
        "--gin.DATA_STREAMS=128",
    ],
    "4xv5e-256_gke": [
        BASE, *CLOUD, "--on=gke", *FOUR_SLICES, "--service_account=trainer", "--skip_plan"
    ],
    "16_slurm": [
        "--on=slurm", "--nodes=2", "--gpus_per_node=8", "--job_name=base", "--max_restarts=5",
        "--sbatch_option=--partition=a100,h100", "--sbatch_option=--comment=it's me",
        "--gin_file=models/switch_base_8.gin", "--gin_file=runs/pretrain.gin",
        "--gin.MODEL_DIR=gs://my-bucket/runs/a b", "--gin.MIXTURE_OR_TASK_NAME=c4_span_corruption",
        "--gin.BATCH_SIZE=256", "--gin.MESH_DATA=2", "--gin.MESH_EXPERT=8",
        "--gin.DATA_STREAMS=16", "--gin.GROUP_SIZE=4096", "--gin.DECODER_GROUP_SIZE=1024",
    ],
    "4xv5e-256_xpk": [BASE, *CLOUD, "--on=xpk", *FOUR_SLICES, "--spot"],
    # All options of a job; those above are commands of the docs.
    "v5e-16_tpu-vm_options": [
        *DEMO_JOB, "--on=tpu-vm", "--topology=v5e-16", "--reserved", "--env=NOTE=a=b, $c",
        "--release=done", "--internal_ips", "--network=projects/host-project/global/networks/net",
        "--subnetwork=pods",
    ],
    # Kubernetes reads $$ as $, and kubectl 1e3 and y as a number and a truth value without quotes.
    "v6e-8_gke_options": [
        *DEMO_JOB, "--on=gke", "--topology=v6e-8", "--cluster=pods", "--gin.MESH_DATA=1", "--spot",
        "--doctor", "--env=NOTE=a=b, $c", "--env=TEAM=1e3", "--env=CONFIRM=y",
    ],
    "v5e-16_xpk_options": [
        *DEMO_JOB, "--on=xpk", "--topology=v5e-16", "--cluster=pods", "--reserved",
        "--max_restarts=7", "--env=JAX_PLATFORMS=tpu", "--secret=OTHER_KEY", "--change_task",
        "--gin_search_paths=a,b", "--gin.TASK_FEATURE_LENGTHS={'inputs': 64, 'targets': 32}",
        "--seqio_additional_cache_dirs=gs://my-data/cache",
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_dry_run(name, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", "")  # no tool of any cloud
    monkeypatch.setattr(sys, "executable", "/shared/a venv/bin/python")
    assert main(["launch", *CASES[name], "--dry_run"]) == 0
    printed = capsys.readouterr()
    assert printed.out == (GOLDEN / f"{name}.sh").read_text()
    assert "warning" not in printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", CASES)
def test_shells_take_it(name):
    text = (GOLDEN / f"{name}.sh").read_text()
    scripts = [text, *re.findall(r"<<'END'\n(#!/bin/bash\n.*?)^END$", text, re.M | re.S)]
    assert len(scripts) == (2 if "docker run" in text or "#SBATCH" in text else 1)
    shellcheck = Path(sys.executable).with_name("shellcheck")
    for script in scripts:
        checked = subprocess.run(
            [shellcheck, "--shell=bash", "-"], input=script, capture_output=True, text=True
        )
        assert checked.stdout == ""
        bash = shutil.which("bash")
        assert bash and subprocess.run([bash, "-n"], input=script, text=True).returncode == 0


def test_the_manifests_fit_the_schemas_of_jobset_and_kubernetes():
    """Unknown fields of JobSet v1alpha2, and of the Kubernetes objects in it, are errors."""
    found = JobsetV1alpha2JobSet.model_json_schema(by_alias=True)
    for definition in [found, *found["$defs"].values()]:
        definition["additionalProperties"] = False
    # Pydantic has a class for what is a number or a string in YAML.
    found["$defs"]["IoK8sApimachineryPkgApiResourceQuantity"] = {"type": ["string", "number"]}
    for name in ("4xv5e-256_gke", "v6e-8_gke_options"):
        text = (GOLDEN / f"{name}.sh").read_text()
        manifest = re.search(r"<<'END'\n(apiVersion.*?)^END$", text, re.M | re.S)[1]
        jsonschema.validate(yaml.safe_load(manifest), found)


def test_the_commands_of_the_docs_for_a_job_are_in_a_dry_run():
    """Commands for a cluster or an account, which a person types, are left out."""
    pages = (LAUNCH.parent / f"docs/{name}.md" for name in ("launching", "gke", "rehearsal"))
    typed = [command for page in pages for command in commands(page.read_text())]
    printed = {c for name in CASES for c in in_words((GOLDEN / f"{name}.sh").read_text())}
    launches = [["switch_jax", "launch", *arguments] for arguments in CASES.values()]
    printed |= {" ".join(sorted(words)) for words in launches}
    own = ("gcloud container clusters create", "kubectl apply --server-side")
    own += ("kubectl create serviceaccount", "switch_jax status")
    of_a_job = [command for command in typed if command and not command.startswith(own)]
    assert len(of_a_job) > 12
    for command in of_a_job:
        launch = command.startswith("switch_jax launch")
        assert (" ".join(sorted(command.split())) if launch else command) in printed
