import contextlib
import os
import signal
import threading
import types
from unittest.mock import Mock

import jax
import pytest

from switch_jax.hardware.tpus import parse_slice
from switch_jax.planning import compiler
from switch_jax.planning.compiler import OutOfMemory
from switch_jax.utils.errors import UserError


def _refusing(message):
    """A lowered program whose compilation fails."""
    return Mock(**{"compile.side_effect": jax.errors.JaxRuntimeError(message)})


@pytest.mark.parametrize(
    ("message", "needed", "limit"),
    [
        ("space hbm. Used 31.50G of 15.75G hbm. Exceeded it.\nTotal ...", 31.5, 15.75),
        ("required for HLO temporaries (24.75G) exceeds available HBM (15.75G).", 24.75, 15.75),
    ],
)
def test_out_of_memory_errors_are_read(message, needed, limit, monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "_prepare", lambda: tmp_path / "made")
    report = compiler.compile_program(_refusing(f"Ran out of memory in {message}"))
    assert isinstance(report, OutOfMemory)
    assert (report.needed, report.limit) == (needed * 2**30, limit * 2**30)


def test_ctrl_c_does_not_wait_for_the_compiler_and_leaves_no_schedules(monkeypatch, tmp_path):
    ended, schedules = threading.Event(), tmp_path / "schedules"
    schedules.mkdir()
    monkeypatch.setattr(compiler, "_schedules", schedules)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background

    def compile():
        os.kill(os.getpid(), signal.SIGINT)
        ended.wait()

    try:
        with pytest.raises(KeyboardInterrupt):
            compiler.compile_program(Mock(compile=compile))
        assert not ended.is_set() and list(tmp_path.iterdir()) == []
    finally:
        ended.set()
        signal.signal(signal.SIGINT, before)


def test_another_error_of_the_compiler_is_raised(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler, "_prepare", lambda: tmp_path / "made")
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: something else"):
        compiler.compile_program(_refusing("INTERNAL: something else"))


@pytest.mark.parametrize("fails", [False, True])
def test_a_request_to_terminate_is_handled_as_before_libtpu(fails, monkeypatch, tmp_path):
    def get_topology_desc(**_):
        signal.signal(signal.SIGTERM, lambda *_: None)
        if fails:
            raise ValueError("no such slice")
        return types.SimpleNamespace(devices=["chip"])

    monkeypatch.setattr(compiler, "_prepare", lambda: tmp_path / "made")
    monkeypatch.setattr(compiler.topologies, "get_topology_desc", get_topology_desc)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(UserError) if fails else contextlib.nullcontext():
        assert compiler.devices(parse_slice("v5p-8")) == ["chip"]
    assert signal.getsignal(signal.SIGTERM) is before
