"""Steps that parse lines, on lines that are written out."""

import json
import re

import pytest
import tensorflow as tf
from t5.data import preprocessors

from switch_jax.tasks import building_blocks, span_corruption
from switch_jax.tasks.building_blocks import TEXT_TO_TEXT, features, parse_json_lines
from switch_jax.tasks.english import VOCABULARY
from tests.data.helpers import assert_both_end, lines


def parsed(lines, *field_names):
    dataset = parse_json_lines(tf.data.Dataset.from_tensor_slices(lines), field_names)
    return [{k: v.decode() for k, v in row.items()} for row in dataset.as_numpy_iterator()]


def test_tasks_of_users_may_import_them_by_the_earlier_name():
    for name, value in vars(span_corruption).items():
        if not name.startswith("_"):
            assert value is getattr(building_blocks, name)
    names = "features T5_FEATURES TEXT_TO_TEXT SPAN_CORRUPTION parse_json_lines trivia_qa"
    assert {*names.split(), "answer_text", "language_rate"} <= set(vars(span_corruption))


@pytest.mark.parametrize("at_once", [1, 256])
def test_json_lines(monkeypatch, at_once):
    monkeypatch.setattr(building_blocks, "_LINES_AT_ONCE", at_once)
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


def test_a_line_that_nests_too_deeply_is_no_example():
    with pytest.raises(tf.errors.InvalidArgumentError, match="ValueError: not JSON: it nests too "):
        parsed(["[" * 10_000], "inputs")


@pytest.mark.parametrize(
    ("step", "line", "broken", "message"),
    [
        (
            parse_json_lines,
            json.dumps({"inputs": "x" * 100, "targets": "a thing"}),
            json.dumps({"inputs": "x" * 100}),
            f"""FOLDER/b.txt, line 271: no 'targets', in the line '{{"inputs": "{"x" * 47}...""",
        ),
        (
            preprocessors.parse_tsv,
            "what is it?\ta thing",
            "one column",
            "Expect 2 fields but have 1 in record 0; while reading FOLDER/a.txt, FOLDER/b.txt",
        ),
    ],
)
def test_a_broken_line_is_an_error_that_names_its_file_and_of_json_its_number(
    tmp_path, register, step, line, broken, message
):
    (tmp_path / "a.txt").write_text(300 * f"{line}\n")
    (tmp_path / "b.txt").write_text(270 * f"{line}\n" + f"{broken}\n")
    source = lines(tmp_path / "*.txt", "train", "validation")
    register("broken_lines", source, [step, *TEXT_TO_TEXT], features(VOCABULARY))
    assert_both_end("broken_lines", re.escape(message.replace("FOLDER", str(tmp_path))) + "$")
