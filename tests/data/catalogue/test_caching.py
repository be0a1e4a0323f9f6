"""Caches are made with Apache Beam; without it, one line says what to install."""

import collections
import gzip
import importlib.util
import json
import sys

import pytest

from switch_jax.cli import main
from switch_jax.config import DataConfig
from switch_jax.data.catalogue.caching import cache
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.catalogue.registry import get_mixture_or_task
from switch_jax.data.train_batches import TrainBatches
from switch_jax.tasks.c4_files import C4Files
from switch_jax.utils.errors import UserError
from tests.cli.mistakes import refused
from tests.data.helpers import lines
from tests.trainer.helpers import STACKS

pytestmark = pytest.mark.usefixtures("folders_as_before")

NAME = "bible_span_corruption"


def needs_beam(test):
    """Marks a test as slow, and to be skipped where Apache Beam is not there."""
    absent = importlib.util.find_spec("apache_beam") is None
    reason = "Apache Beam needs an environment of its own (docs/prepare_data.md)"
    return pytest.mark.slow(pytest.mark.skipif(absent, reason=reason)(test))


def test_without_beam_one_line_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    assert main(["tasks", "cache", NAME, "--output", str(tmp_path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert "Apache Beam, which cannot be imported here" in printed.err
    assert "pip install '.[cache]'" in printed.err


def test_a_cache_needs_a_folder(capsys):
    assert main(["tasks", "cache", NAME]) == 2
    assert f"`switch_jax tasks cache {NAME} --output DIR`" in capsys.readouterr().err


def test_a_task_without_placeholder_and_a_cache_that_is_there_are_refused(tmp_path, register):
    register("no_placeholder", lines(tmp_path))
    with pytest.raises(UserError, match="no_placeholder cannot be cached: put seqio.CacheDataset"):
        cache("no_placeholder", str(tmp_path))
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "COMPLETED").touch()
    with pytest.raises(UserError, match=f"{NAME} has a cache in {tmp_path}/{NAME} already"):
        cache(NAME, str(tmp_path))


@needs_beam
@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ("runner=NoRunner", "not start with the options runner=NoRunner: Unexpected pipeline r"),
        ("runner=DataflowRunner", "Missing required option: project"),
        ("direct_num_workers=two", "argument --direct_num_workers: invalid int value: 'two'"),
        ("runer=DirectRunner", "Apache Beam has no option runer (did you mean runner?)"),
    ],
)
def test_what_beam_does_not_take_is_told_in_a_line(options, refusal, tmp_path, capsys):
    flags = [f"--beam_pipeline_options={options}", "--output", tmp_path]
    assert refusal in refused(capsys, "tasks", "cache", NAME, *flags)


@needs_beam
def test_the_pages_of_c4_s_files_are_cached_by_a_runner_s_options(tmp_path, register):
    """Beam's workers, here threads, know a task by its name alone."""
    (tmp_path / "en").mkdir()
    for split in ("train", "validation"):
        page = gzip.compress(json.dumps({"text": f"a {split} page"}).encode())
        (tmp_path / f"en/c4-{split}.00000-of-00001.json.gz").write_bytes(page)
    names = {split: f"en/c4-{split}.*" for split in ("train", "validation")}
    bible = get_mixture_or_task(NAME)
    task = register("own_c4", C4Files(names), bible.preprocessors, bible.output_features)
    options = "runner=DirectRunner,direct_num_workers=2,direct_running_mode=multi_threading"
    flags = [f"--beam_pipeline_options={options}", f"--c4_json_dir={tmp_path}"]
    assert main(["tasks", "cache", "own_c4", f"--output={tmp_path}/caches", *flags]) == 0
    encode = task.output_features["targets"].vocabulary.encode
    for split in names:
        (cached,) = task._get_cached_source(split).get_dataset(split, shuffle=False)
        assert cached["targets"].numpy().tolist() == encode(f"a {split} page")


@needs_beam
def test_a_cache_holds_the_tokens_of_the_text_and_is_trained_on(tmp_path):
    assert main(["tasks", "cache", NAME, "--output", str(tmp_path)]) == 0
    task = get_mixture_or_task(NAME)
    encode = task.output_features["targets"].vocabulary.encode
    lines = task.source.get_dataset("validation", shuffle=False).as_numpy_iterator()
    expected = collections.Counter(tuple(encode(line.decode())) for line in lines)
    cached = task._get_cached_source("validation").get_dataset("validation", shuffle=False)
    found = (tuple(example["targets"].tolist()) for example in cached.as_numpy_iterator())
    assert collections.Counter(found) == expected
    config = DataConfig(NAME, {"inputs": 64, "targets": 20}, use_cached_tasks=True)
    batch, _ = next(TrainBatches(open_tasks(config), STACKS, 4))
    assert batch["decoder_loss_weights"].any(axis=1).all()
