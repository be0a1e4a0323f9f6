"""The command that `launch` gives to xpk, run by xpk itself: its dry run needs no cloud."""

import os
import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest
import yaml

from switch_jax.launch.targets import gke
from switch_jax.launch.targets.gke import Gke
from switch_jax.launch.targets.xpk import Xpk
from tests.launch.fakes import put_on_path
from tests.launch.jobs import make_job
from tests.launch.test_hostile_values import TRAIN, as_its_pod_runs_it

_DRY_RUN = ("--dry-run", "--skip-validation")
USUAL = ("--gin_file=models/switch_base.gin", "--gin.MODEL_DIR=gs://my-bucket/runs/base")


@pytest.fixture(scope="module")
def xpk(tmp_path_factory) -> Path:
    """The program, the newest release, in an environment of its own."""
    folder = tmp_path_factory.mktemp("xpk")
    venv.create(folder, with_pip=True)
    install = [folder / "bin/pip", "install", "--quiet", "xpk"]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"xpk cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return folder / "bin/xpk"


def _manifest(xpk: Path, job: Xpk, folder: Path) -> dict[str, Any]:
    """What xpk would apply."""
    (create,) = [step for step in job.commands() if "create" in getattr(step, "argv", ())]
    file = folder / "manifest.yaml"
    command = [xpk, *create.argv[1:], *_DRY_RUN, f"--output-manifest-file={file}"]
    environment = os.environ | {"HOME": str(folder)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return yaml.safe_load(file.read_text())


def _parts(manifest: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The only replicated job of a JobSet, its pods, and their container."""
    (replicated,) = manifest["spec"]["replicatedJobs"]
    pod = replicated["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    return replicated, pod, container


@pytest.mark.slow
@pytest.mark.parametrize(
    ("topology", "train"), [("4xv5e-256", USUAL), ("v5p-128", USUAL), ("2xv6e-16", TRAIN)]
)
def test_xpk_makes_the_pods_of_our_own_manifest(topology, train, xpk, monkeypatch, tmp_path):
    record = "printf '%s\\0' \"$@\" > argv"
    put_on_path(monkeypatch, tmp_path, python=record, sleep="", date="")
    options: dict[str, Any] = {"arguments": train, "env": ("A=b c",), "max_restarts": 7}
    theirs = _manifest(xpk, make_job(topology, Xpk, **options), tmp_path)
    job = make_job(topology, Gke, **options)
    ours = yaml.safe_load(gke.manifest(job))
    their_slices, their_pod, their_container = _parts(theirs)
    our_slices, our_pod, our_container = _parts(ours)
    assert theirs["kind"] == ours["kind"] and theirs["apiVersion"] == ours["apiVersion"]
    assert theirs["metadata"]["name"] == ours["metadata"]["name"]
    limit = theirs["spec"]["failurePolicy"]["maxRestarts"]
    assert limit == ours["spec"]["failurePolicy"]["maxRestarts"] == 1000
    assert their_slices["replicas"] == our_slices["replicas"]
    for key in ("parallelism", "completions", "backoffLimit"):
        assert their_slices["template"]["spec"][key] == our_slices["template"]["spec"][key]
    assert their_pod["terminationGracePeriodSeconds"] == our_pod["terminationGracePeriodSeconds"]
    assert our_pod["nodeSelector"].items() <= their_pod["nodeSelector"].items()
    assert (their_container["name"], their_container["image"]) == ("train", our_container["image"])
    (limit,) = their_container["resources"]["limits"].items()
    assert (limit[0], str(limit[1])) == ("google.com/tpu", str(job.hardware.chips_per_host))
    for variable in our_container["env"]:
        assert variable in their_container["env"]
    (rule,) = their_slices["template"]["spec"]["podFailurePolicy"]["rules"]
    restarting = set(rule["onExitCodes"]["values"])  # of all others the job ends
    assert rule["onExitCodes"]["operator"] == "NotIn"
    assert {1, 75, 126, 130, 137} <= restarting and not {0, 2, 3} & restarting

    # The script of the pod runs the command of ours.
    bash, option, script = as_its_pod_runs_it(their_container)
    ran = subprocess.run([bash, option, script], cwd=tmp_path, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    given = (tmp_path / "argv").read_bytes().decode().split("\0")[:-1]
    assert ["python", *given] == as_its_pod_runs_it(our_container)
