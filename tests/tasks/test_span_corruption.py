"""Steps that parse lines, on lines that are written out."""

import json
import re

import pytest
import seqio
import tensorflow as tf
from t5.data import preprocessors

from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.eval_batches import eval_batches
from switch_jax.data.train_batches import TrainBatches
from switch_jax.tasks import span_corruption
from switch_jax.tasks.english import VOCABULARY
from switch_jax.tasks.span_corruption import TEXT_TO_TEXT, features, parse_json_lines
from switch_jax.utils.errors import UserError
from tests.data.helpers import config_of, lines


def parsed(lines, *field_names):
    dataset = parse_json_lines(tf.data.Dataset.from_tensor_slices(lines), field_names)
    return [{k: v.decode() for k, v in row.items()} for row in dataset.as_numpy_iterator()]


@pytest.mark.parametrize("at_once", [1, 3, 256])
def test_json_lines(monkeypatch, at_once):
    monkeypatch.setattr(span_corruption, "_LINES_AT_ONCE", at_once)
    lines = [
        b'\xef\xbb\xbf{"question": "what?", "answer": ""}',  # a byte order mark
        '{"answer": "größer \\ud83d\\ude00\\tb", "question": "a\\u0000b", "id": 3}'.encode(),
        b"",
        b" \t",
        b' {"answer":"first","answer":"last","question":"twice"} ',
    ]
    assert parsed(lines, "answer", "question") == [
        {"question": "what?", "answer": ""},
        {"question": "a\0b", "answer": "größer \N{GRINNING FACE}\tb"},
        {"question": "twice", "answer": "last"},
    ]
    assert parsed([b"", b" "], "answer") == []


def test_fields_are_put_into_a_text():
    """As docs/mixtures.md says."""
    lines = tf.data.Dataset.from_tensors('{"question": "who?", "answer": "she"}')
    rows = seqio.preprocessors.preprocess_tensorflow_examples(
        parse_json_lines(lines, ["question", "answer"]),
        inputs_format="question: {question}",
        targets_format="{answer}",
    )
    assert list(rows.as_numpy_iterator()) == [{"inputs": b"question: who?", "targets": b"she"}]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"inputs": "a', "not JSON: column 12: Unterminated string starting at"),
        ("[1, 2]", "not a JSON object"),
        ('{"inputs": "a"}', "no 'targets'"),
        ('{"inputs": "a", "targets": 3}', "'targets' is 3, and not text"),
        (
            r'{"inputs": "a", "targets": "\ud800"}',
            r"'utf-8' codec can't encode character '\ud800' in position 0: surrogates not allowed",
        ),
    ],
)
def test_a_line_that_is_no_example(line, message):
    found = f"ValueError: {message}, in the line {line!r}\n"
    with pytest.raises(tf.errors.InvalidArgumentError, match=re.escape(found)):
        parsed([line], "inputs", "targets")


def test_a_line_that_nests_too_deeply():
    with pytest.raises(tf.errors.InvalidArgumentError, match="ValueError: not JSON: .*, in the li"):
        parsed(["[" * 10**5], "inputs")


@pytest.mark.parametrize(
    ("step", "line", "broken", "message"),
    [
        (
            parse_json_lines,
            '{"inputs": "what is it?", "targets": "a thing"}',
            json.dumps({"inputs": "x" * 100}),
            f"""no 'targets', in the line '{{"inputs": "{"x" * 47}...""",
        ),
        (
            preprocessors.parse_tsv,
            "what is it?\ta thing",
            "one column",
            "Expect 2 fields but have 1 in record 0",
        ),
    ],
)
def test_a_broken_line_is_an_error_that_names_its_file(
    tmp_path, register, step, line, broken, message
):
    (tmp_path / "a.txt").write_text(300 * f"{line}\n")
    (tmp_path / "b.txt").write_text(270 * f"{line}\n" + f"{broken}\n")
    source = lines(tmp_path / "*.txt", "train", "validation")
    register("broken_lines", source, [step, *TEXT_TO_TEXT], features(VOCABULARY))
    for split, read in (
        ("train", lambda opened: next(TrainBatches(opened, 1000))),
        ("validation", lambda opened: list(eval_batches(opened, 1000))),
    ):
        with pytest.raises(UserError) as caught:
            read(open_tasks(config_of("broken_lines", 8, split=split)))
        files = f"{tmp_path}/a.txt, {tmp_path}/b.txt"
        said = f"broken_lines, split {split!r}: {message}; while reading {files}"
        assert str(caught.value) == said
