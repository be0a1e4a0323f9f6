"""The flags for data tell seqio where to look."""

import argparse
import os

import pytest
import seqio

from switch_jax.cli import data_flags
from tests.cli.mistakes import refused


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    monkeypatch.setattr(seqio.utils, "_TFDS_DATA_DIR_OVERRIDE", None)
    monkeypatch.setattr(seqio.utils, "_GLOBAL_CACHE_DIRECTORIES", [])


def test_both_flags():
    parser = argparse.ArgumentParser()
    data_flags.add_data_flags(parser)
    source = seqio.TfdsDataSource("xsum:1.1.0")
    data_flags.apply(parser.parse_args([]))
    assert source.tfds_dataset.data_dir is None
    assert seqio.get_global_cache_dirs() == []
    flags = ["--tfds_data_dir=gs://bucket/tfds", "--seqio_additional_cache_dirs=~/one,/two"]
    data_flags.apply(parser.parse_args(flags))
    assert source.tfds_dataset.data_dir == "gs://bucket/tfds"
    assert seqio.get_global_cache_dirs() == [os.path.expanduser("~/one"), "/two"]


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            ["--gin.MIXTURE_OR_TASK_NAME=xsum", "--tfds_data_dir=/no/tfds"],
            "xsum:1.1.0, which is not in /no/tfds",
        ),
        (
            ["--gin.USE_CACHED_TASKS=True", "--seqio_additional_cache_dirs=/no,/nor"],
            "no cache of bible_span_corruption in /no or /nor",
        ),
        (
            ["--tfds_data_dir=gs://my-bucket/../x"],
            "--tfds_data_dir 'gs://my-bucket/../x': write the name of the bucket, and the",
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
