"""Variables and secrets of a job, and the files that its image needs.

What each target prints of them is in the golden files `*_options.sh`.
"""

import subprocess
from pathlib import Path

import pytest

from switch_jax.cli import main
from switch_jax.launch.targets.gke import Gke
from switch_jax.launch.targets.tpu_vm import TpuVm
from switch_jax.tasks.english import DATA
from tests.docs.pages import in_words
from tests.launch.fakes import put_on_path
from tests.launch.jobs import IMAGE, ON_VM, PRETRAIN, make_job


def test_only_several_slices_of_newer_generations_have_flags_of_libtpu():
    for topology in ("v5e-256", "2xv4-64", "4xv5e-256", "2xv5p-256", "2xv6e-256"):
        found = make_job(topology).variables
        wanted = topology not in ("v5e-256", "2xv4-64")
        assert ("LIBTPU_INIT_ARGS" in found) == wanted, topology


@pytest.mark.parametrize(
    ("target", "kept"),
    [
        (TpuVm, "gcloud secrets create WANDB_API_KEY --data-file=- --project=my-project"),
        (
            Gke,
            "kubectl create secret generic wandb-api-key --from-file=WANDB_API_KEY=/dev/stdin",
        ),
    ],
)
def test_a_secret_is_kept_from_a_variable_of_the_shell_and_printed_nowhere(
    target, kept, monkeypatch, tmp_path
):
    calls = put_on_path(monkeypatch, tmp_path, gcloud="cat > value", kubectl="cat > value")
    job = make_job("v5e-16", target, secret=("WANDB_API_KEY",))
    (keep,) = [c.argv for c in job.setup() if c.argv[0] == "bash"]
    assert subprocess.run(keep, capture_output=True).returncode != 0, "the shell has no such value"
    assert calls.read_text() == ""
    monkeypatch.setenv("WANDB_API_KEY", "s3cret $x")
    subprocess.run(keep, check=True)
    assert (tmp_path / "value").read_text() == "s3cret $x"
    assert calls.read_text().splitlines()[-1] == kept
    assert "s3cret" not in job.describe()


def test_what_the_hosts_may_lack_is_told(tmp_path, capsys):
    (tmp_path / "my_mixture.py").write_text(
        "import seqio, switch_jax.tasks.c4\n"
        "seqio.MixtureRegistry.add('launched_c4', [('c4_span_corruption', 1)])\n"
    )
    (tmp_path / "mine.gin").write_text(
        f"import my_mixture\n{PRETRAIN}MIXTURE_OR_TASK_NAME = 'launched_c4'\nMESH_EXPERT = 16\n"
        "GROUP_SIZE = 512\nDECODER_GROUP_SIZE = 114\nWANDB_PROJECT = 'mine'\n"
    )
    assert main([*ON_VM, "--dry_run", "--gin_file=mine.gin"]) == 0
    files, data, wandb, _ = capsys.readouterr().err.strip().splitlines()[-4:]
    assert "note: the hosts have no file of this machine: the image needs mine.gin, my_mix" in files
    assert "c4_span_corruption reads the TFDS data set c4/en" in data
    assert data.endswith("give --tfds_data_dir=gs://BUCKET/FOLDER")
    assert "note: WANDB_PROJECT is set: the image needs wandb" in wandb


def test_the_image_gets_each_file_in_its_folder_and_nothing_that_is_installed(
    monkeypatch, tmp_path, capsys
):
    library = ".venv/lib/python3.11/site-packages"
    files = {
        "here/configs/my_run.gin": "import launched_pkg.tasks_mod\nimport launched_library\n"
        f"import launched_single\n{PRETRAIN}MIXTURE_OR_TASK_NAME = 'c4_span_corruption'\n"
        "MESH_EXPERT = 16\nVOCABULARY = 'my.model'\n",
        "here/launched_pkg/tasks_mod.py": "",
        f"here/{library}/launched_library.py": "",
        "here/launched_single.py": "from launched_helpers import SIZE\n",
        "here/launched_helpers.py": "SIZE = 1\n",
        "outside.gin": "TRAIN_STEPS = 7\n",
    }
    for file, text in files.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    monkeypatch.chdir("here")
    Path("my.model").write_bytes((DATA / "english_1000.model").read_bytes())
    monkeypatch.syspath_prepend(tmp_path / "here" / library)
    flags = ["--gin_file=configs/my_run.gin", "--gin_file=../outside.gin"]
    assert main([*ON_VM, "--dry_run", "--tfds_data_dir=gs://my-bucket/tfds", *flags]) == 0
    script, messages = capsys.readouterr()
    assert "TFDS" not in messages
    assert (
        "the image needs configs/my_run.gin, launched_pkg/, launched_single.py, "
        "launched_helpers.py, my.model, as the commands below build it\n"
    ) in messages
    assert "the image needs ../outside.gin, which the commands below do not copy: name" in messages
    docker = '[[ "$*" != *--file=-* ]] || cat > dockerfile'
    calls = put_on_path(monkeypatch, tmp_path, docker=docker)
    for step in script.split("\n\n"):
        if "docker build" in step or "docker push" in step:
            subprocess.run(["bash", "-c", step], check=True)
    build = "docker build --platform=linux/amd64"
    assert calls.read_text().splitlines() == [
        f"{build} --file=launch/Dockerfile --tag={IMAGE}-base .",
        f"{build} --tag={IMAGE} --file=- .",
        f"docker push {IMAGE}",
    ]
    (own,) = [line for line in in_words(script) if "--file=-" in line]
    assert own.startswith(f"printf '%s\\n' 'FROM {IMAGE}-base' 'COPY [\"configs/my_run.gin\", ")
    assert own.endswith(f"""'COPY ["my.model", "/app/"]' | {build} --tag={IMAGE} --file=- .""")
    assert Path("dockerfile").read_text() == (
        f"FROM {IMAGE}-base\n"
        'COPY ["configs/my_run.gin", "/app/configs/"]\n'
        'COPY ["launched_pkg/", "/app/launched_pkg/"]\n'
        'COPY ["launched_single.py", "/app/"]\n'
        'COPY ["launched_helpers.py", "/app/"]\n'
        'COPY ["my.model", "/app/"]\n'
    )
