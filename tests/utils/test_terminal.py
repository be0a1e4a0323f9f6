import io
import re
import sys
import threading

import pytest

from switch_jax.utils.terminal import seconds_shown
from tests.waiting import HANGS


class Errors(io.StringIO):
    """In the place of standard error; `shown` once seconds were written."""

    def __init__(self, is_terminal):
        super().__init__()
        self.shown, self._is_terminal = threading.Event(), is_terminal

    def isatty(self):
        return self._is_terminal

    def write(self, text):
        if text.endswith(" s"):
            self.shown.set()
        return super().write(text)


def test_a_terminal_shows_what_is_running_until_it_ends_or_fails(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Errors(is_terminal=True))
    with pytest.raises(ValueError), seconds_shown("compiling"):
        assert sys.stderr.shown.wait(HANGS)
        raise ValueError
    assert re.fullmatch(r"(\rcompiling: \d+ s)+\r\033\[K", sys.stderr.getvalue())


def test_a_file_has_lines_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Errors(is_terminal=False))
    with seconds_shown("checking"):
        pass
    assert sys.stderr.getvalue() == ""
    with seconds_shown("compiling", line_period=0.01):
        assert sys.stderr.shown.wait(HANGS)
    assert re.fullmatch(r"compiling\n(compiling: \d+ s\n)+", sys.stderr.getvalue())
