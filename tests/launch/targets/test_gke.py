"""Jobs on GKE, through kubectl and through xpk, with programs that are scripts.

What the manifest has is in the golden files, of a slice with a host and of spot chips too.
"""

import re
import time

import pytest
import yaml

from switch_jax.launch import commands, jobset
from switch_jax.launch.targets import gke
from switch_jax.launch.targets.gke import Gke
from switch_jax.launch.targets.xpk import Xpk
from switch_jax.utils.errors import UserError
from tests.launch.fakes import change, fails_once, put_on_path
from tests.launch.jobs import make_job

# All eight pods run from the second look on; the JobSet is over when they have ended twice.
KUBECTL = """
case "$*" in
  apply*) if [ -e refused ]; then echo "field is immutable" >&2; exit 1; fi; touch there ;;
  *--ignore-not-found*terminalState*)
    if [ ! -e there ]; then exit; fi
    echo "JobSet $(if [ "$(cat ended 2> /dev/null)" = 2 ]; then cat over; fi)" ;;
  *--output=name*)
    for n in 1 2 3 4 5 6 7; do echo pod/$n; done; if [ -e looked ]; then echo pod/8; fi
    touch looked ;;
  logs*--tail=20) echo last ;;
  logs*) echo "[pod/base-slice-0-0-x/train] step 1"
    n=$(cat ended 2> /dev/null || echo 0); echo $((n + 1)) > ended ;;
  *exitCode*) cat codes ;;
esac
"""


@pytest.fixture
def calls(monkeypatch, tmp_path):
    monkeypatch.setattr(jobset, "_POLL_SECONDS", 0.05)
    monkeypatch.setattr(jobset, "_SETTLE_SECONDS", 0.0)
    monkeypatch.setattr(commands, "_RETRY_SECONDS", 0.05)
    made = 'case "$*" in *create*) touch there ;; esac'
    return put_on_path(monkeypatch, tmp_path, kubectl=KUBECTL, gcloud="", xpk=made)


def _job(**fields):
    return make_job("2xv5e-16", Gke, **fields)


@pytest.mark.parametrize(
    ("over", "codes", "expected"),
    [
        ("Completed", "0 0", 0),
        ("Failed", "0 2 134", 2),
        ("Failed", "", 1),
        ("Failed", "137 2", 2),  # the cluster has killed the other
        ("Failed", "137", 137),
    ],
)
def test_pods_are_followed_through_restarts_to_the_end(
    over, codes, expected, calls, tmp_path, capfd
):
    (tmp_path / "over").write_text(over)
    (tmp_path / "codes").write_text(codes)
    assert _job().run() == expected
    printed = capfd.readouterr()
    assert printed.out.count("[pod/base-slice-0-0-x/train] step 1\n") == 2
    assert "base: 7 of 8 pods run\n" in printed.err
    assert f"base: {over}\n" in printed.err
    assert ("last\n" in printed.err) == (over == "Failed")
    first, second = calls.read_text().splitlines()[:2]
    assert first.startswith("gcloud container clusters get-credentials pods --location=us-west4-a")
    assert second == (
        "kubectl apply --filename=launched/base.yaml --context=gke_my-project_us-west4-a_pods"
    )
    assert (tmp_path / "launched/base.yaml").read_text().startswith("apiVersion: jobset.x-k8s.io/")


@pytest.mark.parametrize("is_there", [False, True])
def test_xpk_starts_a_job_that_is_not_there_and_it_is_followed_alike(
    is_there, calls, tmp_path, capfd
):
    (tmp_path / "over").write_text("Completed")
    if is_there:
        (tmp_path / "there").touch()
    assert make_job("2xv5e-16", Xpk).run() == 0
    taken = re.findall(r"xpk workload (\S+ --\S+) ", calls.read_text())
    assert taken == ["list --cluster=pods", *([] if is_there else ["create --workload=base"])]
    assert capfd.readouterr().out.count("step 1\n") == 2


def test_lines_that_were_printed_are_not_asked_for_again(calls, monkeypatch, tmp_path):
    (tmp_path / "over").write_text("Completed")
    times = [time.gmtime(day * 86400) for day in range(1, 5)]
    monkeypatch.setattr(jobset.time, "gmtime", lambda: times.pop(0))
    # kubectl's own complaint is no line of the job's.
    change(tmp_path, "kubectl", "> ended ;;", "> ended; echo broken >&2 ;;")
    assert _job().run() == 0
    first, second = re.findall(r"kubectl logs .*--follow(.*)", calls.read_text())
    assert (first, second) == (" --tail=-1", " --tail=-1 --since-time=1970-01-02T00:00:00Z")


def test_a_cluster_that_does_not_answer_for_a_while_ends_nothing(calls, tmp_path, capfd):
    (tmp_path / "over").write_text("Completed")
    (tmp_path / "away").touch()
    fails = fails_once('"get pods"*')
    change(tmp_path, "kubectl", "\ncase", f"\n{fails}\ncase")
    assert _job().run() == 0
    assert "no route; trying again in" in capfd.readouterr().err


def test_a_job_that_somebody_deletes_is_not_waited_for(calls, tmp_path):
    (tmp_path / "over").touch()
    change(tmp_path, "kubectl", "logs*)", "logs*) rm there;")
    with pytest.raises(UserError, match="JobSet base is gone: somebody has deleted it"):
        _job().run()


def test_what_the_cluster_refuses_is_an_error(calls, tmp_path, capfd):
    (tmp_path / "refused").touch()
    with pytest.raises(UserError, match="exit code 1 of: kubectl apply"):
        _job().run()
    assert "field is immutable" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("target", "paid"), [(Gke, "gcloud container node-pools create"), (Xpk, "xpk cluster create")]
)
def test_nodes_are_made_last_before_the_job(target, paid):
    """They cost money from then on: secrets and image are there before."""
    job = make_job("2xv5e-16", target, secret=("A_KEY",), user_files=("my_run.gin",))
    steps = "\n".join(" ".join(step.argv) for step in job.setup())
    before, paid, after = steps.partition(paid)
    assert before.count("docker build") == 2 and "docker push ghcr.io/me/switch_jax:1" in before
    assert 'printf %s "$A_KEY" |' in before
    assert paid and "docker" not in after and "A_KEY" not in after


def test_reserved_nodes_are_asked_for_where_they_are_made():
    (create,) = make_job("v5e-16", Gke, reserved=True).create_nodes()
    assert create.argv[-2:] == ("--reservation-affinity=specific", "--reservation=RESERVATION")
    assert "RESERVATION is the name of yours" in create.why


@pytest.mark.parametrize("target", [Gke, Xpk])
def test_the_limit_of_restarts_is_counted_in_the_pods(target):
    """The JobSet's own limit, of its whole life, is only for pods that get nowhere."""
    for spot, given, restarts in ((False, None, 3), (True, None, 100), (True, 7, 7)):
        job = make_job("v5e-16", target, spot=spot, max_restarts=given)
        limited = ["switch_jax.launch.restart_limit", "gs://my-bucket/runs/base", str(restarts)]
        assert list(job.command[:6]) == ["python", "-m", *limited, "--"]
        assert job.command[6:8] == ("switch_jax", "train")
        assert job.restarts_of_cluster == 1000
    assert make_job("v5e-16", target, max_restarts=2000).restarts_of_cluster == 2000
    never = make_job("v5e-16", target, max_restarts=0)
    assert never.restarts_of_cluster == 0 and never.command[0] == "switch_jax"


@pytest.mark.parametrize("target", [Gke, Xpk])
def test_compiled_programs_outlive_a_pod(target):
    folder = {"JAX_COMPILATION_CACHE_DIR": "gs://my-bucket/runs/base/compiled"}
    assert folder.items() <= make_job("v5e-16", target).variables.items()
    own = make_job("v5e-16", target, env=("JAX_COMPILATION_CACHE_DIR=gs://other/cache",))
    assert own.variables["JAX_COMPILATION_CACHE_DIR"] == "gs://other/cache"


@pytest.mark.parametrize(
    ("topology", "host_gibibytes", "asked", "limit"),
    [
        ("v5e-1", 20.1, "21Gi", "43Gi"),
        ("v5e-16", 30, "30Gi", "172Gi"),
        ("v5p-8", 999, "403Gi", "403Gi"),
    ],
)
def test_a_pod_asks_for_what_the_run_takes_and_leaves_a_tenth_of_the_memory(
    topology, host_gibibytes, asked, limit
):
    """Of machines with 48, 192 and 448 GiB. More than that no node would have."""
    job = make_job(topology, Gke, host_bytes=int(host_gibibytes * 2**30))
    (slices,) = yaml.safe_load(gke.manifest(job))["spec"]["replicatedJobs"]
    (container,) = slices["template"]["spec"]["template"]["spec"]["containers"]
    assert container["resources"] == {
        "requests": {"memory": asked, "ephemeral-storage": "10Gi"},
        "limits": {
            "google.com/tpu": str(job.hardware.chips_per_host),
            "memory": limit,
            "ephemeral-storage": "40Gi",
        },
    }


def test_all_that_is_made_can_be_deleted_by_printed_commands():
    *_, pool, cluster = (" ".join(step.argv) for step in _job().cleanup_commands())
    assert pool.startswith("gcloud container node-pools delete base-1 --cluster=pods")
    # Without --quiet gcloud asks: other jobs may run there.
    where = "--location=us-west4-a --project=my-project"
    assert cluster == f"gcloud container clusters delete pods {where}"


def test_exit_codes_decide_as_elsewhere():
    """What a Job says of a failure, as Kubernetes writes it, and the rule that it falls under."""
    rules = yaml.safe_load(gke.manifest(_job()))["spec"]["failurePolicy"]["rules"]

    def action(reason: str, message: str) -> str:
        for rule in rules:
            patterns = rule.get("onJobFailureMessagePatterns", [""])
            if reason in rule["onJobFailureReasons"] and any(
                re.search(p, message) for p in patterns
            ):
                return rule["action"]
        return "RestartJobSet"  # JobSet's default

    said = "Container train for pod default/base-slice-0-3-x failed with exit code {} matching"
    said += " FailJob rule at index {}"
    gone = "Pod default/base-slice-0-3-x has condition DisruptionTarget matching FailJob rule at 2"
    for code in (2, 3, 130):
        assert action("PodFailurePolicy", said.format(code, 0)) == "FailJobSet"
    ignored = "RestartJobSetAndIgnoreMaxRestarts"
    assert action("PodFailurePolicy", said.format(75, 1)) == ignored
    assert action("PodFailurePolicy", gone) == ignored
    assert action("BackoffLimitExceeded", "Job has reached the limit") == "RestartJobSet"
