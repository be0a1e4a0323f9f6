"""The pages on pods, buckets, GPUs and Slurm: those of their commands that need no cloud, as typed.

`tests/launch/test_golden.py` compares their launches on TPUs with dry runs.
"""

import importlib.util
import re

import pytest

from switch_jax.run_folder import RunFolder
from tests.docs.pages import DOCS, blocks, commands, follow, in_words
from tests.storage import gcs_server


def _text(page: str) -> str:
    return (DOCS / f"{page}.md").read_text()


def _typed(page: str, start: str) -> list[str]:
    """The commands of a page that start like this, each on one line."""
    return [line for line in commands(_text(page)) if line.startswith(start)]


def _files(page: str) -> list[str]:
    return [block for block in blocks(_text(page)) if block.startswith("# my_")]


@pytest.mark.slow
def test_a_dry_run_prints_the_commands_of_the_first_pod(tmp_path):
    dry_run, launch = _typed("first_pod", "switch_jax launch")
    assert dry_run == f"{launch} --dry_run"
    printed = follow([*_files("first_pod"), f"{dry_run} --skip_storage"], tmp_path)
    starts = ("docker", "printf", "gcloud alpha compute tpus", "gcloud compute tpus")
    ours = [line for start in starts for line in _typed("first_pod", start)]
    assert len(ours) == 5
    assert set(ours) <= set(in_words(printed))
    assert "--gin_file=my_pod.gin" in printed


@pytest.mark.slow
def test_every_command_of_a_rehearsal_runs(tmp_path):
    printed = follow(blocks(_text("rehearsal")), tmp_path)
    assert (RunFolder(tmp_path / "runs/rehearsal").checkpoints / "100").exists()
    assert "runs/rehearsal: finished" in printed


@pytest.mark.slow
def test_a_run_in_a_bucket_is_trained_and_reported(monkeypatch, tmp_path):
    train, *looks = _typed("buckets", "switch_jax")
    assert len(looks) == 2
    with gcs_server.serve() as url:
        gcs_server.make_bucket(url, "my-bucket")
        for name, value in gcs_server.environment(url).items():
            monkeypatch.setenv(name, value)
        printed = follow([f"{train} --gin.TRAIN_STEPS=20", *looks], tmp_path)
    assert "gs://my-bucket/runs/demo: finished" in printed
    assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.slow
def test_the_runs_on_gpus_and_on_a_laptop_are_accepted(tmp_path):
    (gpu,) = [line for line in _typed("gpu", "switch_jax train") if "..." not in line]
    (slurm,) = _typed("slurm", "switch_jax launch")
    (laptop,) = _typed("recipes", "switch_jax train")
    dry_runs = [f"{gpu} --dry_run", f"{laptop} --dry_run", f"{slurm} --dry_run --skip_storage"]
    printed = follow(dry_runs, tmp_path)
    assert "parameters 2.3 GiB, gradients 2.3 GiB" in printed and "#SBATCH --nodes=2" in printed


@pytest.mark.slow
def test_the_run_on_one_tpu_vm_is_accepted(tmp_path):
    """With a vocabulary that needs no bucket."""
    (file,) = _files("tpu_vm")
    dry_run, train = _typed("tpu_vm", "switch_jax train")
    assert dry_run == f"{train} --dry_run"
    printed = follow([file, f"{dry_run} --gin.VOCABULARY=byte"], tmp_path)
    assert "parameters" in printed and "optimiser" in printed


@pytest.mark.slow
def test_the_doctor_of_the_page_finds_nothing(tmp_path):
    first, of_a_pod = _typed("doctor", "switch_jax doctor")
    assert "gs://" in of_a_pod
    printed = follow([first], tmp_path)
    assert "failed" not in printed
    assert re.search("(?m)^passed +a Switch layer on the mesh: ", printed)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("page", ["first_pod", "planning", "recipes", "tpu_vm"])
def test_the_plan_of_the_page_fits(page, tmp_path):
    (plan,) = _typed(page, "switch_jax plan")
    follow([*_files(page), plan], tmp_path)
