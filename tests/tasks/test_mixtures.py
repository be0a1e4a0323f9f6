"""Which tasks the mixtures have, and at which rates."""

import json

import pytest
import seqio

from switch_jax.data.registry import mixing_rates, provider, tasks_of
from switch_jax.errors import UserError
from switch_jax.evaluation.task_metrics import average_of_tasks
from tests.tasks.test_offline import TASKS, read

# The tasks that the paper lists, by their names in TFDS.
LISTED = {
    "glue": {"sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "cola"},
    "super_glue": {"wic", "rte", "cb", "multirc", "record", "boolq", "wsc.fixed", "copa"},
}


def rates_of(mixture):
    tasks = tasks_of(mixture)
    rates = mixing_rates(mixture, tasks)
    return {task.name: rate for task, rate in zip(tasks, rates, strict=True)}


@pytest.mark.parametrize(
    ("mixture", "examples"),
    [
        ("anli", {"anli_r1": 16946, "anli_r2": 45460, "anli_r3": 100459}),
        (
            "closed_book_qa",
            {
                "trivia_qa_open": 78785,
                "natural_questions_open": 79168,
                "web_questions_open": 3417,
            },
        ),
        (
            "factbook_super_glue",
            {name: len(read(name, "train")) for name in TASKS if name != "factbook_qa_open"},
        ),
    ],
)
def test_mixtures_are_proportional_to_the_training_examples(mixture, examples):
    assert rates_of(mixture) == examples


def test_mixtures_and_pretraining_are_found_under_t5_s_names():
    # Training examples of CoLA, SST-2, MRPC, QQP, STS-B, MNLI, QNLI and RTE.
    expected = 8551 + 67349 + 3668 + 363849 + 5749 + 392702 + 104743 + 2490
    assert sum(rates_of("glue_v002_proportional").values()) == expected
    names = {task.name for task in tasks_of("super_glue_v102_proportional")}
    assert {"super_glue_record_v102", "super_glue_wic_v102", "dpr_v001_simple"} <= names
    data_set = provider("c4_v220_span_corruption").source.tfds_dataset.name
    assert data_set == "c4/en:2.2.0"


def trained_on(rates):
    """The TFDS names of the tasks with a rate, without the benchmark's name and version."""
    names = (provider(name).source.tfds_dataset.name for name, rate in rates.items() if rate)
    return {name.split("/")[-1].split(":")[0] for name in names}


def test_glue_has_the_tasks_of_the_paper():
    rates = rates_of("glue_with_wnli")
    assert trained_on(rates) == LISTED["glue"]
    assert rates["glue_wnli_v002"] == 635


def test_the_average_of_glue_is_over_its_nine_tasks():
    tasks = [t for t in tasks_of("glue_with_wnli") if t.metric_objs]
    names = {t.name for t in tasks} - {"glue_mnli_v002"}  # which has no split "validation"
    assert len(names) == 10
    assert average_of_tasks({name: {"accuracy": 9.0 * ("mnli" in name)} for name in names}) == 1


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


@pytest.mark.parametrize("benchmark", LISTED)
def test_rates_by_tokens_are_those_of_the_caches(benchmark, caches):
    name = f"{benchmark}_by_tokens"
    with pytest.raises(UserError, match="from the cache of .*: make it with `switch_jax tasks cac"):
        rates_of(name)
    for i, task in enumerate(tasks_of(name)):
        caches(task, inputs=10 * (i + 1), targets=i)
    rates = rates_of(name)
    # Winograd schemas of another data set, which T5 trains on too.
    assert trained_on(rates) - {"definite_pronoun_resolution"} == LISTED[benchmark]
    for i, rate in enumerate(rates.values()):
        assert rate in (0.0, 10 * (i + 1) + i)
