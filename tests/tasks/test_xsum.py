"""XSum's articles and ROUGE by hand."""

import pytest

from tests.tasks.records import preprocess, score, texts

RECORDS = [{"document": "A cat sat down.\nIt slept.", "summary": "The cat sat on the mat."}]


def test_records_become_text():
    assert texts(preprocess("xsum", RECORDS)) == [
        ("summarize: A cat sat down.\nIt slept.", "The cat sat on the mat.")
    ]


def test_rouge():
    # Of 6 words and 5 pairs in the target, 'the cat sat' has 3 and 2, all of its own.
    expected = {"rouge1": 2 * 3 / (6 + 3), "rouge2": 2 * 2 / (5 + 2), "rougeLsum": 2 * 3 / (6 + 3)}
    found = score("xsum", preprocess("xsum", RECORDS), ["The cat sat"])
    assert found == {name: pytest.approx(100 * value) for name, value in expected.items()}
