import json

import pytest

from switch_jax.utils.json_text import parse_json


def test_values():
    assert parse_json(b'{"a": [1, null]}') == parse_json('{"a": [1, null]}') == {"a": [1, None]}


@pytest.mark.parametrize("text", ["", "{", b"\xff", "1" * 5000])
def test_what_is_none_is_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text)


def test_deep_nesting_is_a_value_error():
    with pytest.raises(RecursionError):
        json.loads("[" * 100_000)
    with pytest.raises(ValueError, match="^it nests too deeply$"):
        parse_json("[" * 100_000)


def test_a_binary_file_is_named_as_one():
    with pytest.raises(ValueError, match="^a binary file, or text in another .* at byte 1$"):
        parse_json(b"\x1f\x8b\x08\x00")
