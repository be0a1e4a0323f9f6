import os

import pytest
import seqio

from tests.cli.mistakes import refused


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(seqio.utils, "_TFDS_DATA_DIR_OVERRIDE", None)
    monkeypatch.setattr(seqio.utils, "_GLOBAL_CACHE_DIRECTORIES", [])


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            ["--gin.MIXTURE_OR_TASK_NAME=xsum", "--tfds_data_dir=/no/tfds"],
            "xsum:1.1.0, which is not in /no/tfds",
        ),
        (
            ["--gin.USE_CACHED_TASKS=True", "--seqio_additional_cache_dirs=~/no,/nor"],
            f"no cache of bible_span_corruption in {os.path.expanduser('~')}/no or /nor",
        ),
        (
            ["--seqio_additional_cache_dirs=/no,a\udcff"],
            r"--seqio_additional_cache_dirs 'a\udcff': a path is UTF-8 text without NUL",
        ),
    ],
)
def test_train_takes_them(values, told, capsys, tmp_path):
    config = ["--gin_file=runs/demo_switch.gin", f"--gin.MODEL_DIR={tmp_path}", "--dry_run"]
    assert told in refused(capsys, "train", *config, *values)
