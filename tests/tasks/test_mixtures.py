import json

import pytest
import seqio

from switch_jax.data.catalogue.registry import get_mixture_or_task, get_tasks
from switch_jax.utils.errors import UserError
from tests.tasks.records import rates_of
from tests.tasks.test_offline import TASKS, read

# The tasks that the paper lists, by their names in TFDS.
LISTED = {
    "glue": {"sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli", "cola"},
    "super_glue": {"wic", "rte", "cb", "multirc", "record", "boolq", "wsc.fixed", "copa"},
}


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


def test_pretraining_is_found_under_t5_s_name():
    assert get_mixture_or_task("c4_v220_span_corruption").source.tfds_dataset.name == "c4/en:2.2.0"


def trained_on(rates):
    """The TFDS names of the tasks with a rate, without the benchmark's name and version."""
    names = (
        get_mixture_or_task(name).source.tfds_dataset.name for name, rate in rates.items() if rate
    )
    return {name.split("/")[-1].split(":")[0] for name in names}


def test_glue_has_the_tasks_of_the_paper():
    rates = rates_of("glue_with_wnli")
    assert trained_on(rates) == LISTED["glue"]
    assert rates["glue_wnli_v002"] == 635


@pytest.fixture
def caches(tmp_path, folders_as_before):
    """Makes the cache of a task that holds its numbers alone."""
    seqio.set_global_cache_dirs([str(tmp_path)])

    def make(task, inputs, targets):
        folder = tmp_path / task.name
        folder.mkdir()
        stats = {"examples": 3, "inputs_tokens": inputs, "targets_tokens": targets}
        (folder / "stats.train.json").write_text(json.dumps(stats))
        (folder / "COMPLETED").touch()

    return make


@pytest.mark.parametrize("benchmark", LISTED)
def test_rates_by_tokens_are_those_of_the_caches(benchmark, caches):
    name = f"{benchmark}_by_tokens"
    with pytest.raises(UserError, match="from the cache of .*: make it with `switch_jax tasks cac"):
        rates_of(name)
    for i, task in enumerate(get_tasks(name)):
        caches(task, inputs=10 * (i + 1), targets=i)
    rates = rates_of(name)
    # Winograd schemas of another data set, which T5 trains on too.
    assert trained_on(rates) - {"definite_pronoun_resolution"} == LISTED[benchmark]
    for i, rate in enumerate(rates.values()):
        assert rate in (0.0, 10 * (i + 1) + i)
