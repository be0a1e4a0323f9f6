"""Rates of GLUE and SuperGLUE by examples and by tokens."""

import json

import pytest
import seqio

from switch_jax.data.registry import mixing_rates, tasks_of
from switch_jax.errors import UserError
from switch_jax.evaluation.task_metrics import average_of_tasks

# The tasks that the paper lists, by their names in TFDS.
LISTED = {
    "glue": {"sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "cola"},
    "super_glue": {"wic", "rte", "cb", "multirc", "record", "boolq", "wsc.fixed", "copa"},
}


@pytest.fixture
def caches(tmp_path):
    """Makes the cache of a task that holds its numbers alone, and forgets it after the test."""
    folders, made = list(seqio.get_global_cache_dirs()), []
    seqio.set_global_cache_dirs([str(tmp_path)])

    def make(task, inputs, targets):
        folder = tmp_path / task.name
        folder.mkdir()
        stats = {"examples": 3, "inputs_tokens": inputs, "targets_tokens": targets}
        (folder / "stats.train.json").write_text(json.dumps(stats))
        (folder / "COMPLETED").touch()
        made.append(task)

    yield make
    seqio.set_global_cache_dirs(folders)
    for task in made:
        task._cache_dir, task._stats = None, {}


def trained_on(mixture, rates):
    """The TFDS names of the tasks with a rate, without the benchmark's name and version."""
    found = [t for t, rate in zip(tasks_of(mixture), rates, strict=True) if rate]
    return {task.source.tfds_dataset.name.split("/")[-1].split(":")[0] for task in found}


def test_glue_has_the_tasks_of_the_paper():
    name = "glue_with_wnli"
    rates = mixing_rates(name, tasks_of(name))
    assert trained_on(name, rates) == LISTED["glue"]
    assert dict(zip([t.name for t in tasks_of(name)], rates, strict=True))["glue_wnli_v002"] == 635


def test_the_average_of_glue_is_over_its_nine_tasks():
    tasks = [t for t in tasks_of("glue_with_wnli") if t.metric_objs]
    names = {t.name for t in tasks} - {"glue_mnli_v002"}  # which has no split "validation"
    assert len(names) == 10
    assert average_of_tasks({name: {"accuracy": 9.0 * ("mnli" in name)} for name in names}) == 1


@pytest.mark.parametrize("benchmark", LISTED)
def test_rates_by_tokens_are_those_of_the_caches(benchmark, caches):
    name = f"{benchmark}_by_tokens"
    tasks = tasks_of(name)
    with pytest.raises(UserError, match="from the cache of .*: make it with `switch_jax tasks cac"):
        mixing_rates(name, tasks)
    for i, task in enumerate(tasks):
        caches(task, inputs=10 * (i + 1), targets=i)
    rates = mixing_rates(name, tasks)
    # Winograd schemas of another data set, which T5 trains on too.
    assert trained_on(name, rates) - {"definite_pronoun_resolution"} == LISTED[benchmark]
    for i, rate in enumerate(rates):
        assert rate in (0.0, 10 * (i + 1) + i)
