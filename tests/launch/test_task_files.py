"""Files of this machine that a run's tasks read, which hosts in a cloud do not have."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace

import pytest
import seqio

from switch_jax.cli import main
from switch_jax.config import DataConfig
from switch_jax.launch import task_files
from switch_jax.tasks.building_blocks import features
from switch_jax.tasks.english import DATA, VOCABULARY, as_targets
from switch_jax.utils.errors import UserError
from tests.cli.mistakes import refused
from tests.launch.jobs import ON_VM

DATA_CONFIG = DataConfig("launched_files", {"inputs": 64, "targets": 16})
PACKAGED = {"train": str(DATA / "bible.train.txt.gz"), "validation": "gs://my-data/valid.txt"}


@pytest.fixture(autouse=True)
def here(tmp_path):
    """The current folder, with four files."""
    for file in ("a.txt", "r/1.rec", "r/2.rec", "my.model"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).touch()
    yield tmp_path
    seqio.TaskRegistry.remove("launched_files")


def add_task(source, vocabulary=VOCABULARY, steps=(as_targets,)):
    seqio.TaskRegistry.add(
        "launched_files",
        source=source,
        preprocessors=[*steps, seqio.preprocessors.tokenize],
        output_features=features(vocabulary),
    )


def run(data=DATA_CONFIG, eval_period=100):
    """The parts of a config that say what is read."""
    return SimpleNamespace(data=data, run=SimpleNamespace(eval_period=eval_period))


def missing(user_files=(), **parts):
    """What the message names."""
    try:
        task_files.check(user_files, run(**parts))
    except UserError as error:
        return str(error).partition("tasks of this run read ")[2].partition(": copy them")[0]
    return ""


def test_files_of_the_splits_that_are_read_are_named():
    files = {"train": "a.txt", "validation": ["r/*.rec", "none/*"], "test": "of_no_run.txt"}
    add_task(seqio.TextLineDataSource(files), seqio.SentencePieceVocabulary("my.model"))
    assert missing() == "a.txt, r/*.rec, none/*, my.model"
    assert missing(eval_period=None) == "a.txt, my.model"


def test_what_hosts_have_is_not_named(here):
    lies_in = {
        "a package of the image": (here / "r/1.rec", ("r/",)),
        "the image": ("a.txt", ("./a.txt",)),
        "an installed package": ("/usr/lib/python3/site-packages/x/y.txt", ()),
    }
    for place, (file, user_files) in lies_in.items():
        add_task(seqio.TextLineDataSource(PACKAGED | {"train": str(file)}))
        assert missing(user_files=user_files) == "", place
        seqio.TaskRegistry.remove("launched_files")


def test_a_tfds_data_set_in_a_folder_of_the_task_is_named():
    source = seqio.TfdsDataSource("glue/cola:2.0.0", tfds_data_dir="tfds", splits=("train",))
    add_task(source)
    assert missing() == "tfds/glue"
    seqio.set_tfds_data_dir_override("gs://my-data/tfds")
    assert missing() == "", "the flag comes first"
    assert task_files.in_buckets(run()) == ["gs://my-data/tfds/glue"]
    seqio.set_tfds_data_dir_override(None)
    assert missing() == "tfds/glue"


def test_a_cache_is_named_in_place_of_the_source(here, monkeypatch):
    monkeypatch.setattr(seqio.utils, "_GLOBAL_CACHE_DIRECTORIES", [])
    source = seqio.TextLineDataSource(PACKAGED | {"train": "a.txt"})
    add_task(source, steps=(as_targets, seqio.CacheDatasetPlaceholder()))
    cached = dataclasses.replace(DATA_CONFIG, use_cached_tasks=True)
    seqio.add_global_cache_dirs(["caches"])
    assert missing() == "a.txt"
    assert missing(data=cached) == "", "there is no cache"
    (here / "caches/launched_files").mkdir(parents=True)
    (here / "caches/launched_files/COMPLETED").touch()
    assert missing(data=cached) == "caches/launched_files"
    seqio.add_global_cache_dirs(["gs://my-data/caches"])
    assert missing(data=cached) == "", "hosts look for it in the bucket"


def test_launch_refuses_them_for_a_cloud_alone(here, capsys):
    Path("launched_text.py").write_text(
        "import seqio\nfrom tests.launch.test_task_files import add_task\n"
        "add_task(seqio.TextLineDataSource({'train': 'a.txt', 'validation': 'a.txt'}))\n"
    )
    Path("mine.gin").write_text(
        "import launched_text\ninclude 'runs/demo_switch.gin'\nGROUP_SIZE = 64\nMESH_DATA = 8\n"
        "DATA_STREAMS = 4\nMIXTURE_OR_TASK_NAME = 'launched_files'\nMODEL_DIR = 'gs://my-bucket/runs/x'\n"
    )
    cloud = [*ON_VM, "--dry_run", "--gin_file=mine.gin"]
    told = "the tasks of this run read a.txt: copy them to a bucket"
    assert told in refused(capsys, *cloud)
    assert main([*cloud, "--skip_storage"]) == 0
