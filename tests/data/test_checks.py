import pytest
import seqio

from switch_jax.config import DataConfig
from switch_jax.data.checks import check_examples, open_tasks
from switch_jax.errors import UserError
from switch_jax.tasks import english


def test_a_wrong_split_is_reported_with_the_right_ones():
    config = DataConfig("english_span_corruption", {"inputs": 128, "targets": 32}, split="test")
    with pytest.raises(UserError, match="no split 'test': its splits are train, validation"):
        open_tasks(config)


def test_a_missing_cache_is_reported():
    config = DataConfig(
        "english_span_corruption", {"inputs": 128, "targets": 32}, use_cached_tasks=True
    )
    with pytest.raises(UserError, match="no cache of bible_span_corruption"):
        open_tasks(config)


def test_a_missing_file_is_reported_in_one_line(tmp_path):
    seqio.TaskRegistry.add(
        "missing_file",
        source=seqio.TextLineDataSource({"train": str(tmp_path / "no_such.txt")}),
        preprocessors=[english.as_targets, seqio.preprocessors.tokenize],
        output_features={"targets": seqio.Feature(english.VOCABULARY)},
    )
    config = DataConfig("missing_file", {"inputs": 8, "targets": 8})
    with pytest.raises(UserError, match=r"^missing_file, split 'train': .*no_such.txt"):
        check_examples(open_tasks(config))


def test_a_task_without_inputs_is_refused():
    seqio.TaskRegistry.add(
        "targets_alone",
        source=seqio.TextLineDataSource({"train": str(english.DATA / "README.md")}),
        preprocessors=[english.as_targets, seqio.preprocessors.tokenize],
        output_features={"targets": seqio.Feature(english.VOCABULARY)},
    )
    config = DataConfig("targets_alone", {"inputs": 8, "targets": 8})
    with pytest.raises(UserError, match="targets_alone have targets.*no inputs: an encoder-dec"):
        check_examples(open_tasks(config))


@pytest.mark.parametrize("name", ["toy_none", "toy_empty"])
def test_a_task_without_examples_is_refused(name):
    opened = open_tasks(DataConfig(name, {"inputs": 10, "targets": 7}))
    message = f"{name} gives no example of its split 'train'.*without a token"
    with pytest.raises(UserError, match=message):
        check_examples(opened)
