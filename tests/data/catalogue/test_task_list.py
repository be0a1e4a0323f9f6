"""The list of tasks: what can be read here, and what cannot."""

import socket

import pytest

from switch_jax.data.catalogue import registry, task_list
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio
from tests.data.helpers import ANLI_RECORD, prepare


def parts(text):
    """The rows of the table, split into their columns; and the line and names below it."""
    table, _, rest = text.partition("\n\n")
    return [line.split(maxsplit=2) for line in table.splitlines()], rest


@pytest.fixture
def folder(tmp_path, monkeypatch, folders_as_before):
    """An empty folder of TFDS data sets; a connection to anywhere is an error."""

    def refuse(*args, **kwargs):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    registry.names()  # imports all families
    seqio.set_tfds_data_dir_override(str(tmp_path))
    return tmp_path


def test_what_comes_with_the_project_can_be_read_and_the_rest_is_named(folder):
    rows, rest = parts(task_list.task_list())
    assert " ".join(" ".join(rows[0]).split()) == "can be read here kind splits"
    assert ["bible_span_corruption", "task", "train, validation"] in rows
    for objective in ("span_corruption", "prefix_lm", "full_lm", "ul2"):
        assert [f"english_{objective}", "mixture", "train, validation"] in rows
    # The seven denoisers of the three corpora; those of C4 are among the rest.
    assert ["ul2*", "21", "of them   train, validation"] in rows
    assert ["udhr*", "303", "of them  train, validation"] in rows  # 3 x (a mixture, 100 languages)
    line, names = rest.split(":\n", 1)
    names = " ".join(names.split())  # it is wrapped
    assert line == "not here; --tfds_data_dir gives TFDS data (docs/prepare_data.md)"
    # Span corruption, prefix_lm and full_lm of 107 languages, and their mixtures, from TFDS and
    # from JSON files.
    assert "anli, anli_r1," in names and "mc4* (648)" in names and "udhr" not in names
    assert "bible_span_corruption" not in names


def test_a_family_is_listed_by_a_pattern(folder):
    rows, rest = parts(task_list.task_list("factbook*"))
    known = [name for name in registry.names() if name.startswith("factbook")]
    assert [row[0] for row in rows[1:]] == known and rest == ""
    with pytest.raises(UserError, match="no task or mixture matches 'no_such\\*'"):
        task_list.task_list("no_such*")


def test_a_data_set_that_was_prepared_can_be_read(folder):
    prepare(folder, "anli", "r1", "0.1.0", {"train": [ANLI_RECORD], "test": [ANLI_RECORD]})
    rows, rest = parts(task_list.task_list("anli*"))
    assert rows[1:] == [["anli_r1", "task", "test, train"]]
    assert rest.endswith(":\nanli, anli_r2, anli_r3")  # the mixture needs all three
