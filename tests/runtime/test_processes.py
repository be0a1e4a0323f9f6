"""What one process can check; tests/trainer/test_many_hosts.py has real ones."""

import json
import subprocess
import sys

import jax
import pytest

from switch_jax.runtime import processes
from switch_jax.utils.errors import LostHostError, TransientError, UserError
from tests.trainer.worker_processes import ROOT, free_port, without_virtual_devices


def test_what_jax_refuses_of_the_flags_is_a_mistake_in_one_line(monkeypatch):
    def refuse(*_, **__):
        raise ValueError("process_id has to be below num_processes\nand more")

    monkeypatch.setattr(jax.distributed, "initialize", refuse)
    message = "^cannot join the other processes: process_id has to be below num_processes$"
    with pytest.raises(UserError, match=message) as error:
        processes.connect("localhost:1", 2, 2)
    assert type(error.value) is UserError


@pytest.mark.parametrize(
    ("given", "seconds"), [((None, None, None), 1800), (("localhost:1", 2, 0), 300)]
)
def test_hosts_that_a_platform_starts_may_be_late(given, seconds, monkeypatch):
    found = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **flags: found.update(flags))
    processes.connect(*given)
    assert found["initialization_timeout"] == seconds


@pytest.mark.parametrize(
    ("environment", "product", "kind", "message"),
    [
        ({}, None, UserError, "--multihost is for Cloud TPU, GKE, Slurm and Open MPI: elsewhere"),
        ({}, "Standard PC\n", UserError, "should be defined.; --multihost is for Cloud TPU"),
        ({}, "Google Compute Engine\n", TransientError, "no TPU shows up on this machine"),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, None, TransientError, "no TPU shows up on this machine"),
    ],
)
def test_a_tpu_that_does_not_show_up(environment, product, kind, message, monkeypatch, tmp_path):
    def initialize(*_, **__):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for name in ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(processes, "_PRODUCT_NAME", tmp_path / "product_name")
    if product:
        (tmp_path / "product_name").write_text(product)
    with pytest.raises(UserError, match=message) as error:
        processes.connect(None, None, None)
    assert type(error.value) is kind


@pytest.mark.parametrize(
    ("others", "found"),
    [
        ([], None),
        ([{}, {}], None),
        ([{}, {"jax": "0.12.0"}], "process 2 differs from process 0 (jax '0.10.2' -> '0.12.0'): "),
        ([{"line 2": "B = 3"}, {}], "process 1 differs from process 0 (line 2 'B = 2' -> 'B = 3')"),
    ],
)
def test_what_hosts_do_not_have_alike_is_named(others, found):
    first = {
        "Python": "3.11.7",
        "jax": "0.10.2",
        "libtpu": "-",
        "line 1": "A = 1",
        "line 2": "B = 2",
    }
    said = processes.difference([first, *({**first, **other} for other in others)])
    assert (said or "").startswith(found or "") and bool(said) == bool(found)


def test_versions_are_those_installed():
    found = processes.versions()
    assert found["jax"] == jax.__version__
    assert found["Python"] == ".".join(map(str, sys.version_info[:3]))
    assert set(found) == {"Python", "switch_jax", "jax", "jaxlib", "libtpu"}


def compare(port, index, config):
    """What each of two processes does; prints what it is told."""
    processes.connect(f"localhost:{port}", 2, int(index))
    try:
        processes.check_same_config(config)
    except UserError as error:
        print(error)


@pytest.mark.parametrize("other", ["A = 1", "A = 2"])
def test_two_processes_compare_their_configs(other):
    program = "import sys; from tests.runtime.test_processes import compare; compare(*sys.argv[1:])"
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, port, str(index), config],
            cwd=ROOT, env=without_virtual_devices(), stdout=subprocess.PIPE, text=True,
        )
        for index, config in enumerate(["A = 1", other])
    ]  # fmt: skip
    printed = [process.communicate(timeout=120)[0].strip() for process in processes]
    wrong = "process 1 differs from process 0 (line 1 'A = 1' -> 'A = 2'): give all processes"
    for text in printed:
        assert (text == "") if other == "A = 1" else text.startswith(wrong)


def test_alone_everything_is_agreed():
    assert processes.is_first()
    assert processes.gather({"a": [1, 2.5, None]}) == [{"a": [1, 2.5, None]}]
    assert processes.run_on_all(lambda: 1) == 1


@pytest.mark.parametrize(
    ("own", "others", "kind", "message"),
    [
        (UserError("full"), [], UserError, "full"),
        (TransientError("slow"), [], TransientError, "slow"),
        (TransientError("slow"), [None, None], TransientError, "slow"),
        (LostHostError("gone"), [None, ["slow", True]], TransientError, "gone"),
        (TransientError("slow"), [None, ["full", False]], UserError, "full"),
        (UserError("full"), [["slow", True], ["gone", False]], UserError, "full"),
        (None, [["slow", True], None], TransientError, "slow"),
    ],
)
def test_all_raise_the_same_and_first_what_stays(own, others, kind, message, monkeypatch):
    def action():
        if own is not None:
            raise own

    monkeypatch.setattr(processes, "gather", lambda told: json.loads(json.dumps([told, *others])))
    with pytest.raises(UserError, match=f"^{message}$") as error:
        processes.run_on_all(action)
    assert type(error.value) is kind
