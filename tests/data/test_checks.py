import pytest
import seqio
from t5.data import preprocessors

from switch_jax.config import DataConfig
from switch_jax.data.checks import check_examples, cut_examples, open_tasks
from switch_jax.errors import UserError
from switch_jax.tasks import english
from switch_jax.tasks.building_blocks import TEXT_TO_TEXT, features, parse_json_lines


@seqio.map_over_dataset
def _with_wrong_key(example):
    return {"targets": example["text"]}


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


@pytest.mark.parametrize(
    ("name", "steps", "message"),
    [
        (
            "no_first_step",
            [seqio.preprocessors.tokenize, preprocessors.span_corruption],
            r"the step tokenize fails: AttributeError: ",
        ),
        (
            "no_tokenize",
            [english.as_targets, preprocessors.span_corruption],
            r"the step span_corruption fails: ValueError: slice index 0 of dimension 0 out of "
            r"bounds\.; it has no step seqio\.preprocessors\.tokenize, which text needs$",
        ),
        (
            "text_alone",
            [english.as_targets],
            r"ValueError: .*; it has no step seqio\.preprocessors\.tokenize, which text needs$",
        ),
        (
            "wrong_key",
            [english.as_targets, seqio.preprocessors.tokenize, _with_wrong_key],
            r"the step _with_wrong_key fails: KeyError: 'text'$",
        ),
    ],
)
def test_a_step_that_fails_is_named_with_what_is_missing(name, steps, message):
    seqio.TaskRegistry.add(
        name,
        source=seqio.TextLineDataSource({"train": str(english.DATA / "README.md")}),
        preprocessors=steps,
        output_features={
            feature: seqio.Feature(english.VOCABULARY, required=feature == "targets")
            for feature in ("inputs", "targets")
        },
    )
    opened = open_tasks(DataConfig(name, {"inputs": 16, "targets": 8}))
    with pytest.raises(
        UserError, match=f"^the examples of {name} cannot be preprocessed: {message}"
    ):
        check_examples(opened)


@pytest.mark.parametrize("name", ["toy_none", "toy_empty"])
def test_a_task_without_examples_is_refused(name):
    opened = open_tasks(DataConfig(name, {"inputs": 10, "targets": 7}))
    message = f"{name} gives no example of its split 'train'.*without a token"
    with pytest.raises(UserError, match=message):
        check_examples(opened)


def test_examples_that_lose_their_end_are_counted():
    """The lengths are those of `conftest.PAIRS`; span corruption fits its text to any length."""
    beginning = "toy_pairs: {} of the first 5 examples have more than {} tokens of {}, and lose"
    for line, expected in zip(
        cut_examples(open_tasks(DataConfig("toy_pairs", {"inputs": 4, "targets": 3}))),
        (beginning.format(2, 4, "inputs"), beginning.format(1, 3, "targets")),
        strict=True,
    ):
        assert line == f"{expected} their end"
    for name, lengths in (("toy_mixture", (7, 4)), ("english_span_corruption", (64, 16))):
        config = DataConfig(name, dict(zip(("inputs", "targets"), lengths, strict=True)))
        assert cut_examples(open_tasks(config)) == []


def test_only_the_first_examples_are_measured_with_their_eos(tmp_path):
    """Lines of 3 bytes and EOS, and a longer one behind the 200 that are measured."""
    lines = ['{"inputs": "abc", "targets": "a"}'] * 200 + ['{"inputs": "abcde", "targets": "a"}']
    (tmp_path / "lines").write_text("\n".join(lines))
    seqio.TaskRegistry.add(
        "of_bytes",
        source=seqio.TextLineDataSource({"train": str(tmp_path / "lines")}),
        preprocessors=[parse_json_lines, *TEXT_TO_TEXT],
        output_features=features(seqio.ByteVocabulary()),
    )
    assert cut_examples(open_tasks(DataConfig("of_bytes", {"inputs": 4, "targets": 2}))) == []
    (line,) = cut_examples(open_tasks(DataConfig("of_bytes", {"inputs": 3, "targets": 2})))
    assert line.startswith("of_bytes: 200 of the first 200 examples have more than 3 tokens")
    seqio.TaskRegistry.remove("of_bytes")
