"""What one process can check; tests/trainer/test_many_hosts.py has real ones."""

import json
import subprocess
import sys

import jax
import pytest

from switch_jax.runtime import multihost
from switch_jax.utils.errors import LostHostError, TransientError, UserError
from tests.trainer.worker_processes import ROOT, free_port, without_virtual_devices
from tests.waiting import HANGS


@pytest.mark.parametrize(
    ("given", "seconds"), [((None, None, None), 1800), (("localhost:1", 2, 0), 300)]
)
def test_hosts_that_a_platform_starts_may_be_late(given, seconds, monkeypatch):
    found = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_, **flags: found.update(flags))
    multihost.connect(*given)
    assert found["initialization_timeout"] == seconds


@pytest.mark.parametrize(
    ("given", "product", "workers", "kind", "message"),
    [
        (("localhost:1", 2, 2), "Google\n", "a,b", UserError, "some reason$"),
        ((None, None, None), "PC\n", None, UserError, "some reason; --multihost is for Cloud TPU"),
        ((None, None, None), "Google\n", None, TransientError, "no TPU shows up on this machine"),
        ((None, None, None), None, "a,b", TransientError, "no TPU shows up on this machine"),
    ],
)
def test_what_jax_refuses_is_a_mistake_in_the_flags_or_a_tpu_that_does_not_show_up(
    given, product, workers, kind, message, monkeypatch, tmp_path
):
    def initialize(*_, **__):
        raise ValueError("some reason\nand more")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.delenv("TPU_PROCESS_ADDRESSES", raising=False)
    monkeypatch.delenv("TPU_WORKER_HOSTNAMES", raising=False)
    if workers:
        monkeypatch.setenv("TPU_WORKER_HOSTNAMES", workers)
    monkeypatch.setattr(multihost, "_PRODUCT_NAME", tmp_path / "product_name")
    if product:
        (tmp_path / "product_name").write_text(product)
    with pytest.raises(UserError, match=f"^cannot join the other processes: .*{message}") as error:
        multihost.connect(*given)
    assert type(error.value) is kind


def compare(port, index, config):
    """What each of two processes does; prints what it is told."""
    if index == "1":
        others = {**multihost.versions(), "jax": "0"}
        multihost.versions = lambda: others
    multihost.connect(f"localhost:{port}", 2, int(index))
    try:
        multihost.check_same_config(config)
    except UserError as error:
        print(error)


def test_two_processes_compare_their_versions_and_configs():
    program = "import sys; from tests.runtime.test_multihost import compare; compare(*sys.argv[1:])"
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, port, str(index), f"A = {index + 1}"],
            cwd=ROOT, env=without_virtual_devices(), stdout=subprocess.PIPE, text=True,
        )
        for index in range(2)
    ]  # fmt: skip
    found = f"jax '{jax.__version__}' -> '0', line 1 'A = 1' -> 'A = 2'"
    told = f"process 1 differs from process 0 ({found}): give all processes"
    for process in processes:
        assert process.communicate(timeout=HANGS)[0].startswith(told)


@pytest.mark.parametrize(
    ("own", "others", "kind", "message"),
    [
        (TransientError("slow"), [None, None], TransientError, "slow"),
        (LostHostError("gone"), [None, ["slow", True, True]], TransientError, "gone"),
        (TransientError("slow"), [None, ["full", False, True]], UserError, "full"),
        (UserError("full"), [["slow", True, True], ["gone", False, False]], UserError, "full"),
        (None, [["slow", True, True], None], TransientError, "slow"),
    ],
)
def test_all_raise_the_same_and_first_what_stays(own, others, kind, message, monkeypatch):
    def action():
        if own is not None:
            raise own

    monkeypatch.setattr(multihost, "gather", lambda told: json.loads(json.dumps([told, *others])))
    with pytest.raises(UserError, match=f"^{message}$") as error:
        multihost.run_on_all(action)
    assert type(error.value) is kind
    assert error.value.of_storage == any(told[0] == message and told[2] for told in others if told)
