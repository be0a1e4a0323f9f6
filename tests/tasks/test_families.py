"""Families register when they are imported or asked for, and without a network."""

import subprocess
import sys
from pathlib import Path

import pytest
import seqio

import switch_jax.tasks
from switch_jax.data.catalogue import registry
from switch_jax.tasks import FAMILIES
from switch_jax.utils.errors import UserError


def test_a_family_registers_its_tasks_alone_and_a_name_is_looked_for_until_it_is_found():
    code = (
        "import socket\n"
        "def refuse(*args): raise AssertionError('a connection was tried')\n"
        "socket.socket.connect = refuse\n"
        "import switch_jax.tasks.arc, seqio\n"
        "assert set(seqio.TaskRegistry.names()) == {'arc_easy', 'arc_challenge'}\n"
        "from switch_jax.data.catalogue import registry\n"
        "registry.get_mixture_or_task('arc_easy')\n"
        "assert len(seqio.TaskRegistry.names()) == 2\n"
        "registry.get_mixture_or_task('xsum')\n"
        "assert 'xsum' in seqio.TaskRegistry.names()\n"
        "assert 'winogrande_xl' not in seqio.TaskRegistry.names()\n"
        "assert 'glue_cola_v002' not in seqio.TaskRegistry.names()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_module_of_tasks_is_a_family():
    files = Path(switch_jax.tasks.__file__).parent.glob("*.py")
    modules = {f"switch_jax.tasks.{file.stem}" for file in files} - {"switch_jax.tasks.__init__"}
    without_tasks = {
        f"switch_jax.tasks.{name}"
        for name in ("building_blocks", "c4_files", "named_vocabularies", "span_corruption")
    }
    assert set(FAMILIES) == {"t5.data.mixtures"} | modules - without_tasks


def test_a_name_of_one_s_own_that_a_family_has_too_is_told(tmp_path, monkeypatch):
    registry.get_mixture_or_task("arc_easy")
    (tmp_path / "late_family.py").write_text(
        "import seqio\nseqio.MixtureRegistry.add('arc_easy_too', ['arc_easy'], default_rate=1.0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registry, "FAMILIES", ("late_family",))
    seqio.MixtureRegistry.add("arc_easy_too", ["arc_challenge"], default_rate=1.0)
    try:
        with pytest.raises(UserError, match="late_family cannot be .*: arc_easy_too: choose"):
            registry.get_mixture_or_task("no_such_task")
    finally:
        seqio.MixtureRegistry.remove("arc_easy_too")
