import io
import re
import sys
import time

import pytest

from switch_jax.utils.terminal import seconds_shown


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_what_is_running_until_it_ends_or_fails(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with pytest.raises(ValueError), seconds_shown("compiling"):
        time.sleep(1.2)
        raise ValueError
    assert re.fullmatch(r"(\rcompiling: \d s)+\r\033\[K", sys.stderr.getvalue())


def test_a_file_has_lines_where_they_are_asked_for(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with seconds_shown("checking"):
        pass
    assert sys.stderr.getvalue() == ""
    with seconds_shown("compiling", line_period=0.1):
        time.sleep(0.3)
    assert re.fullmatch(r"compiling\n(compiling: 0 s\n)+", sys.stderr.getvalue())
