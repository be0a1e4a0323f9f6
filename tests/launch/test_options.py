"""Environment variables, secrets and networks of a job, in what each target prints."""

import os
import subprocess

import pytest

from switch_jax.cli import main
from switch_jax.launch.commands import Command
from switch_jax.launch.targets import TARGETS
from switch_jax.launch.targets.gke import Gke, manifest
from switch_jax.tasks.english import DATA
from tests.launch.fakes import put_on_path
from tests.launch.jobs import IMAGE, ON_VM, make_job

OPTIONS = {"env": ("HF_HUB_OFFLINE=1", "NOTE=a=b, $c"), "secret": ("WANDB_API_KEY",)}
NETWORK = {
    "network": "projects/host-project/global/networks/net",
    "subnetwork": "pods",
    "internal_ips": True,
}


def words(on, **fields):
    """Of each command that the target's job runs."""
    job = make_job("v5e-16", TARGETS[on], **fields)
    steps = [*job.commands(), *job.afterwards()]
    return [step.argv for step in steps if isinstance(step, Command)]


@pytest.mark.parametrize("on", ["tpu-vm", "queued-resource"])
def test_slices_of_tpu_vms_are_made_in_the_network_and_reached_there(on):
    for argv in words(on, **NETWORK):
        remote = "ssh" in argv or "scp" in argv
        assert ("--tunnel-through-iap" in argv) == remote == (argv[1] == "alpha")
        wanted = {
            "--network=projects/host-project/global/networks/net", "--subnetwork=pods",
            "--internal-ips",
        }  # fmt: skip
        assert (wanted & set(argv)) == (wanted if "create" in argv else set())
    assert not any("iap" in word or "network" in word for argv in words(on) for word in argv)


def test_a_pod_has_variables_and_secrets():
    found = manifest(make_job("v5e-16", Gke, **OPTIONS))
    pod = found["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]
    assert pod["spec"]["containers"][0]["env"] == [
        {"name": "JAX_PLATFORMS", "value": "tpu,cpu"},
        {"name": "HF_HUB_OFFLINE", "value": "1"},
        {"name": "NOTE", "value": "a=b, $$c"},
        {
            "name": "WANDB_API_KEY",
            "valueFrom": {"secretKeyRef": {"name": "wandb-api-key", "key": "WANDB_API_KEY"}},
        },
    ]


def test_xpk_is_given_the_names_of_secrets_alone():
    (create,) = [argv for argv in words("xpk", secret=("A_KEY", "B_KEY")) if "create" in argv]
    (command,) = [word for word in create if word.startswith("--command=")]
    reads = "with_secrets my-project A_KEY B_KEY -- switch_jax train "
    assert command.startswith(f"--command={reads}")
    assert sum("_KEY" in word for word in create) == 1


def test_only_several_slices_of_newer_generations_have_flags_of_libtpu():
    for topology in ("v5e-256", "2xv4-64", "4xv5e-256", "2xv5p-256", "2xv6e-256"):
        found = make_job(topology).variables
        wanted = topology not in ("v5e-256", "2xv4-64")
        assert ("LIBTPU_INIT_ARGS" in found) == wanted, topology


def test_xpk_gets_variables_and_a_variable_of_ours_can_be_set():
    (create,) = [argv for argv in words("xpk", env=("JAX_PLATFORMS=tpu",)) if "create" in argv]
    assert [word for word in create if word.startswith("--env=")] == ["--env=JAX_PLATFORMS=tpu"]


@pytest.mark.parametrize(
    ("on", "kept"),
    [
        ("tpu-vm", "gcloud secrets create WANDB_API_KEY --data-file=- --project=my-project"),
        ("xpk", "gcloud secrets create WANDB_API_KEY --data-file=- --project=my-project"),
        (
            "gke",
            "kubectl create secret generic wandb-api-key --from-file=WANDB_API_KEY=/dev/stdin",
        ),
    ],
)
def test_a_secret_is_kept_from_a_variable_of_the_shell_and_printed_nowhere(
    on, kept, monkeypatch, tmp_path
):
    calls = put_on_path(monkeypatch, tmp_path, gcloud="cat > value", kubectl="cat > value")
    job = make_job("v5e-16", TARGETS[on], secret=("WANDB_API_KEY",))
    (keep,) = [c.argv for c in job.setup() if c.argv[0] == "bash"]
    assert subprocess.run(keep, capture_output=True).returncode != 0, "the shell has no such value"
    assert calls.read_text() == ""
    monkeypatch.setenv("WANDB_API_KEY", "s3cret $x")
    subprocess.run(keep, check=True)
    assert (tmp_path / "value").read_text() == "s3cret $x"
    assert calls.read_text().splitlines()[-1] == kept
    assert "s3cret" not in job.describe()


def test_kubectl_has_the_cluster_before_it_changes_something_there():
    job = make_job("v5e-16", Gke, secret=("A_KEY",))
    first, second, *_ = [" ".join(command.argv) for command in job.setup()]
    assert "get-credentials pods" in first and "kubectl create secret" in second


def test_an_image_that_is_named_by_its_digest_is_not_built():
    image = "ghcr.io/me/switch_jax@sha256:" + 64 * "0"
    commands = make_job("v5e-16", image=image, own_files=("mine.gin",)).setup()
    assert not any("docker" in word for command in commands for word in command.argv)


def test_what_the_hosts_may_lack_is_told(tmp_path, capsys):
    (tmp_path / "my_mixture.py").write_text(
        "import seqio, switch_jax.tasks.c4\n"
        "seqio.MixtureRegistry.add('launched_c4', [('c4_span_corruption', 1)])\n"
    )
    (tmp_path / "mine.gin").write_text(
        "import my_mixture\ninclude 'models/switch_base.gin'\ninclude 'runs/pretrain.gin'\n"
        "MODEL_DIR = 'gs://my-bucket/run'\nMIXTURE_OR_TASK_NAME = 'launched_c4'\nMESH_EXPERT = 16\n"
        "GROUP_SIZE = 512\nDECODER_GROUP_SIZE = 114\n"
    )
    assert main([*ON_VM, "--dry_run", "--gin_file=mine.gin"]) == 0
    _, messages = capsys.readouterr()
    files, data, _ = messages.strip().splitlines()[-3:]
    assert "note: the hosts have no file of this machine: the image needs mine.gin, my_mix" in files
    assert "c4_span_corruption reads the TFDS data set c4/en" in data
    assert data.endswith("give --tfds_data_dir=gs://BUCKET/FOLDER")
    flags = [
        "--gin.MIXTURE_OR_TASK_NAME=c4_span_corruption",
        "--tfds_data_dir=gs://my-bucket/tfds",
        "--gin.WANDB_PROJECT=mine",
    ]
    assert main([*ON_VM, "--dry_run", *flags, "--gin_file=mine.gin", "--change_task"]) == 0
    commands, messages = capsys.readouterr()
    assert "TFDS" not in messages
    assert "note: WANDB_PROJECT is set: the image needs wandb" in messages
    assert "--change_task" in commands  # of the run on the hosts


def test_the_image_gets_each_file_in_its_folder_and_nothing_that_is_installed(
    monkeypatch, tmp_path, capsys
):
    modules = ["launched_pkg.tasks_mod", "launched_library", "launched_single"]
    files = ["launched_pkg/tasks_mod.py", ".venv/lib/python3.11/site-packages/launched_library.py"]
    for file in (*files, "launched_single.py", "configs/my_run.gin"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (tmp_path / "launched_single.py").write_text("from launched_helpers import SIZE\n")
    (tmp_path / "launched_helpers.py").write_text("SIZE = 1\n")
    (tmp_path / "my.model").write_bytes((DATA / "english_1000.model").read_bytes())
    (tmp_path / "configs/my_run.gin").write_text(
        "".join(f"import {module}\n" for module in modules) + "include 'models/switch_base.gin'\n"
        "include 'runs/pretrain.gin'\nMODEL_DIR = 'gs://my-bucket/run'\nMESH_EXPERT = 16\n"
        "MIXTURE_OR_TASK_NAME = 'c4_span_corruption'\nVOCABULARY = 'my.model'\n"
    )
    monkeypatch.syspath_prepend(tmp_path / files[1].rpartition("/")[0])
    flags = ["--tfds_data_dir=gs://my-bucket/tfds", "--gin_file=configs/my_run.gin"]
    assert main([*ON_VM, "--dry_run", *flags]) == 0
    script, messages = capsys.readouterr()
    (note,) = [line for line in messages.splitlines() if "the image needs" in line]
    assert note.partition("needs ")[2] == (
        "configs/my_run.gin, launched_pkg/, launched_single.py, launched_helpers.py, my.model, as "
        "the commands below build it"
    )
    _, built, pushed = _run_with_docker(script, tmp_path / "bin")
    assert built == (
        f"build --platform=linux/amd64 --tag={IMAGE} --file=- .\n"
        f"FROM {IMAGE}-base\n"
        'COPY ["configs/my_run.gin", "/app/configs/"]\n'
        'COPY ["launched_pkg/", "/app/launched_pkg/"]\n'
        'COPY ["launched_single.py", "/app/"]\n'
        'COPY ["launched_helpers.py", "/app/"]\n'
        'COPY ["my.model", "/app/"]\n'
    )
    assert pushed == f"push {IMAGE}\n"


def _run_with_docker(script, folder):
    """What docker is given by the steps that build and push: arguments, and standard input."""
    folder.mkdir()
    docker = folder / "docker"
    docker.write_text('#!/bin/bash\necho "$@"\n[[ "$*" != *--file=-* ]] || cat\n')
    docker.chmod(0o755)
    steps = [
        step for step in script.split("\n\n") if "docker build" in step or "docker push" in step
    ]
    path = f"{folder}:{os.environ['PATH']}"
    return [
        subprocess.run(
            ["bash", "-c", step], env={"PATH": path}, capture_output=True, text=True, check=True
        ).stdout
        for step in steps
    ]


def test_files_outside_of_the_folder_of_the_image_are_named(monkeypatch, tmp_path, capsys):
    (tmp_path / "here").mkdir()
    (tmp_path / "outside.gin").write_text(
        "include 'models/switch_base.gin'\ninclude 'runs/pretrain.gin'\n"
        "MODEL_DIR = 'gs://my-bucket/run'\nMESH_EXPERT = 16\n"
        "MIXTURE_OR_TASK_NAME = 'english_span_corruption'\n"
    )
    monkeypatch.chdir(tmp_path / "here")
    assert main([*ON_VM, "--dry_run", "--gin_file=../outside.gin"]) == 0
    script, messages = capsys.readouterr()
    assert "the image needs ../outside.gin, which the commands below do not copy: name" in messages
    assert "switch_jax:1-base" not in script
