"""A gin file of the user's own, for the tests of gin files."""

import sys

import pytest


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Writes a gin file into the current directory; returns its name."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def write(text, name="mine.gin"):
        (tmp_path / name).write_text(text)
        return name

    return write
