"""Records of JSON lines and text, and their ids."""

import io

import numpy as np
import pytest
import seqio

from switch_jax.inference.input_records import TextFeature, encode, read_records, text_of
from switch_jax.tasks.english import VOCABULARY
from switch_jax.utils.errors import UserError

BYTES = seqio.ByteVocabulary()  # ids are bytes + 3, EOS is 1


def test_json_lines(tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_text('{"inputs": "é", "targets": "b", "id": 7}\n{"inputs": ""}\n')
    assert list(read_records(str(path))) == [{"inputs": "é", "targets": "b"}, {"inputs": ""}]


def test_each_line_of_a_text_file_is_an_input(tmp_path):
    path = tmp_path / "in.txt"
    path.write_text('one\n\n{"inputs": "two"}')
    assert [r["inputs"] for r in read_records(str(path))] == ["one", "", '{"inputs": "two"}']


def test_standard_input_is_json_or_text():
    lines = io.BytesIO(b'{"inputs": "a"}\n{"inputs": "b"}\n')
    assert list(read_records("-", lines)) == [{"inputs": "a"}, {"inputs": "b"}]
    assert list(read_records("-", io.BytesIO(b"a\r\nb"))) == [{"inputs": "a"}, {"inputs": "b"}]


@pytest.mark.parametrize(
    "line, message",
    [
        ('{"inputs": 3}', "in.jsonl, line 2 has no text as 'inputs'"),
        ('["a"]', "in.jsonl, line 2 has no text as 'inputs'"),
        ('{"inputs": ', "in.jsonl, line 2 is not valid JSON: Expecting value"),
        pytest.param("[" * 10_000, "line 2 is not valid JSON: it nests too deeply", id="nested"),
        ('{"inputs": "\udce9"}', "line 2: a binary file, or .*: not UTF-8 at byte 12"),
        (r'{"inputs": "a", "targets": "\udc00"}', "line 2 is not valid JSON: .*surrogates not all"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"inputs": "a"}\n' + line.encode(errors="surrogateescape"))
    records = read_records(str(path))
    assert next(records) == {"inputs": "a"}
    with pytest.raises(UserError, match=message):
        next(records)


@pytest.mark.parametrize("name", ["folder", "none.jsonl"])
def test_what_is_no_file_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=f"{name} cannot be read"):
        list(read_records(str(tmp_path / name)))


def test_ids_end_with_eos_and_are_cut_off_before_it():
    features = {"inputs": TextFeature(BYTES, 3, [1]), "targets": TextFeature(BYTES, 9, [1])}
    record = {"inputs": "abcde", "targets": "d"}
    text, ids, cut, unknown = encode(record, features)
    assert text == record, "the text is not cut off"
    assert ids["inputs"].tolist() == [ord("a") + 3, ord("b") + 3, 1]
    assert ids["targets"].tolist() == [ord("d") + 3, 1]
    assert cut == {"inputs": 3} and not unknown
    _, ids, cut, _ = encode({"inputs": "ab"}, features)
    assert ids["targets"].tolist() == []
    assert not cut, "the text fits to the last token"


def test_unknown_tokens_that_the_model_reads_are_counted():
    """A run of unknown characters is one token; the last one is cut off."""
    record = {"inputs": "漢字 a 漢 b 漢", "targets": "a"}
    length = len(VOCABULARY.encode(record["inputs"]))
    features = {name: TextFeature(VOCABULARY, length, [1]) for name in record}
    example = encode(record, features)
    assert example.cut == {"inputs": 1} and example.unknown == {"inputs": 2}


# Of a task without inputs: a prompt is how a row of 10 begins, and has no EOS.
ROW = {"inputs": TextFeature(BYTES, None, []), "targets": TextFeature(BYTES, 10, [1])}


@pytest.mark.parametrize(
    ("record", "inputs", "targets", "cut"),
    [
        ({"inputs": "abcdefgh"}, "efgh", "", 4),  # 6 are left to the new tokens
        ({"inputs": "abcd"}, "abcd", "", 0),
        ({"inputs": ""}, "", "", 0),
        ({"inputs": "abcdefgh", "targets": "ijk"}, "cdefgh", "ijk", 2),
        ({"inputs": "ab", "targets": "cdefghijk"}, "", "cdefghijk", 2),
    ],
)
def test_a_prompt_without_a_length_keeps_its_end_beside_what_follows(record, inputs, targets, cut):
    _, ids, found, _ = encode(record, ROW, max_new_tokens=6)
    assert ids["inputs"].tolist() == BYTES.encode(inputs)
    assert ids["targets"].tolist() == ([*BYTES.encode(targets), 1] if targets else [])
    assert found == ({"inputs": cut} if cut else {})


def test_what_goes_on_with_a_prompt_is_text_behind_it():
    """SentencePiece has the space before a word in its token, and drops that of a first one."""
    features = {
        "inputs": TextFeature(VOCABULARY, None, []), "targets": TextFeature(VOCABULARY, 10, [1])
    }  # fmt: skip
    whole = np.array(VOCABULARY.encode("In the beginning"))
    for cut in range(len(whole)):
        text = text_of(np.array([*whole[cut:], 1, 1]), {"inputs": whole[:cut]}, features)
        assert VOCABULARY.decode(whole[:cut].tolist()) + text == "In the beginning"
    asked = {**features, "inputs": TextFeature(VOCABULARY, 10, [1])}
    assert text_of(whole[1:], {"inputs": whole[:1]}, asked) == "the beginning"
