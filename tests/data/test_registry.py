import os
import socket
import subprocess
import sys

import pytest

from switch_jax.config import DataConfig
from switch_jax.data import inspect, registry
from switch_jax.errors import UserError


def test_an_unknown_name_is_told_with_near_ones():
    with pytest.raises(UserError, match="'bible_corruption': did you mean bible_span_corruption"):
        registry.provider("bible_corruption")
    with pytest.raises(UserError, match="'zzz': A task of your own .*`import my_tasks`"):
        registry.provider("zzz")


def test_describe_lists_without_a_look_at_the_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    rows = [line.split(maxsplit=2) for line in inspect.describe().splitlines()]
    assert rows[0] == ["name", "kind", "splits"]
    assert ["bible_span_corruption", "task", "train, validation"] in rows
    assert ["english_span_corruption", "mixture", "train, validation"] in rows
    assert ["c4_v220_span_corruption", "task", "(in TFDS)"] in rows


def test_show_gives_ids_and_text_with_sentinels():
    lengths = {"inputs": 64, "targets": 32}
    text = inspect.show(DataConfig("bible_span_corruption", lengths, split="validation"), count=2)
    lines = text.splitlines()
    assert len(lines) == 2 * 5
    assert lines[0] == "bible_span_corruption, validation, example 1"
    assert lines[1].startswith("  inputs, 64 tokens: ") and lines[1].endswith(" 1")
    assert " ... " in lines[1]
    assert "<extra_id_0>" in lines[2]
    # round(0.15 * 70) = 10 tokens in 3 spans, and EOS; <extra_id_0> is the last id.
    assert lines[3].startswith("  targets, 14 tokens: 1099 ")
    assert lines[4].startswith("    <extra_id_0>")


def test_importing_the_tasks_prints_nothing_and_downloads_nothing():
    code = (
        "import socket\n"
        "def refuse(*args): raise AssertionError('a connection was tried')\n"
        "socket.socket.connect = refuse\n"
        "from switch_jax.data import registry\n"
        "import tensorflow as tf\n"
        "assert {'mc4', 'glue_v002_proportional'} <= set(registry.names())\n"
        "assert not tf.config.get_visible_devices('GPU')\n"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TF_")}
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
