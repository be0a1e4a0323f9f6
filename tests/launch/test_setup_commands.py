"""Commands that a person runs once; test_golden.py has them in full."""

import pytest

from switch_jax.launch.targets import TARGETS
from tests.launch.jobs import make_job

DEFAULT = "serviceAccount:PROJECT_NUMBER-compute@developer.gserviceaccount.com"
MINE = "me@my-project.iam.gserviceaccount.com"
POD = (
    "principal://iam.googleapis.com/projects/PROJECT_NUMBER/locations/global/"
    "workloadIdentityPools/my-project.svc.id.goog/subject/ns/default/sa/{}"
)
REGISTRY = "europe-west4-docker.pkg.dev/other-project/images/switch_jax:1"


def prepared(on, **fields):
    job = make_job("v5e-16", cluster="pods", **fields)
    return [" ".join(command.argv) for command in TARGETS[on].setup(job)]


@pytest.mark.parametrize(
    ("on", "account", "user", "puller"),
    [
        ("tpu-vm", None, DEFAULT, DEFAULT),
        ("queued-resource", MINE, f"serviceAccount:{MINE}", f"serviceAccount:{MINE}"),
        ("gke", "trainer", POD.format("trainer"), DEFAULT),
        ("gke", None, POD.format("default"), DEFAULT),
        ("xpk", None, DEFAULT, DEFAULT),
    ],
)
def test_the_job_may_use_its_bucket_and_the_hosts_pull_the_image(on, account, user, puller):
    bucket, repository = [
        command
        for command in prepared(on, service_account=account, image=REGISTRY)
        if "add-iam-policy-binding" in command
    ]
    assert bucket == (
        "gcloud storage buckets add-iam-policy-binding gs://my-bucket "
        f"--member={user} --role=roles/storage.objectUser"
    )
    assert repository == (
        "gcloud artifacts repositories add-iam-policy-binding images --location=europe-west4 "
        f"--project=other-project --member={puller} --role=roles/artifactregistry.reader"
    )


def test_the_project_s_number_is_asked_for_where_it_is_needed():
    ask = "gcloud projects describe my-project --format=value(projectNumber)"
    with_number = prepared("tpu-vm", image=REGISTRY)
    first = next(i for i, command in enumerate(with_number) if "PROJECT_NUMBER" in command)
    assert with_number.index(ask) == first - 1
    assert ask not in prepared("tpu-vm", image=REGISTRY, service_account=MINE)


def test_the_image_s_repository_is_made_in_its_own_project():
    commands = prepared("tpu-vm", image=REGISTRY)
    for command in (
        "gcloud services enable artifactregistry.googleapis.com --project=other-project",
        "gcloud artifacts repositories create images --repository-format=docker "
        "--location=europe-west4 --project=other-project",
        "gcloud auth configure-docker europe-west4-docker.pkg.dev --quiet",
    ):
        assert commands.index(command) < commands.index(f"docker push {REGISTRY}")
    assert not any("artifact" in command for command in prepared("tpu-vm"))  # it is elsewhere


def test_the_hosts_own_account_is_made():
    create = "gcloud iam service-accounts create me --project=my-project"
    assert create in prepared("tpu-vm", service_account=MINE)
    assert not any("service-accounts" in command for command in prepared("tpu-vm"))
