"""Vocabularies that are trained on a task's text before it is tokenised."""

import gzip
import itertools
import re

import pytest
import sentencepiece
import seqio

from switch_jax.data import vocabulary_training as training
from switch_jax.errors import UserError
from switch_jax.tasks import english
from tests.data.helpers import features, lines

STEPS = [seqio.preprocessors.tokenize, seqio.preprocessors.append_eos]
TEXT = ["judge my vow of black quartz, sphinx", "the five boxing wizards jump"] * 20


@pytest.fixture
def two_texts(tmp_path, register):
    """A mixture `mixed_text` of a task with inputs and targets and one with targets, 3 to 1."""
    steps = {
        "pair": lambda line: {"inputs": line, "targets": line + "\n\nagain"},
        "line": lambda line: {"inputs": "", "targets": line},
    }
    for name, step in steps.items():
        (tmp_path / name).write_text("".join(f"{name} {i}\n" for i in range(20)))
        register(
            f"text_{name}s",
            lines(tmp_path / name),
            [seqio.map_over_dataset(step), *STEPS],
            features(english.VOCABULARY),
        )
    register.mixture("mixed_text", [("text_pairs", 3.0), ("text_lines", 1.0)])


def test_a_mixture_s_text_is_shared_out_by_its_rates(two_texts):
    # Of 4 examples 3 are pairs; tasks come by name.
    pairs = itertools.chain(*([f"pair {i}", f"pair {i}", "again"] for i in range(3)))
    assert list(training.lines("mixed_text", "train", 4)) == ["line 0", *pairs]


def test_a_shipped_corpus_is_read_unchanged():
    with gzip.open(english.DATA / "bible.validation.txt.gz", "rt") as file:
        text = file.read().splitlines()
    assert list(training.lines("bible_span_corruption", "validation", 50)) == text[:50]


def test_ids_and_size():
    model = sentencepiece.SentencePieceProcessor(model_proto=training.train(TEXT, 34, False))
    assert (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id()) == (0, 1, 2, -1)
    assert model.get_piece_size() == 34
    assert model.decode(model.encode("black wizards")) == "black wizards"
    assert model.unk_id() in model.encode("日")


def test_byte_fallback_knows_every_character():
    model = sentencepiece.SentencePieceProcessor(model_proto=training.train(TEXT, 288, True))
    # The 256 bytes follow padding, EOS and unknown.
    assert model.encode("日")[-3:] == [3 + byte for byte in "日".encode()]


def test_the_same_text_gives_the_same_model():
    model = training.train(TEXT, 34, False)
    assert training.train(list(TEXT), 34, False) == model
    assert training.train(TEXT, 35, False) != model


def test_impossible_sizes_are_reported():
    with pytest.raises(UserError, match=r"train 9999 pieces: .* too high .* a value <= (\d+)") as e:
        training.train(TEXT, 9999, False)
    most = int(re.search(r"<= (\d+)", str(e.value))[1])
    sentencepiece.SentencePieceProcessor(model_proto=training.train(TEXT, most, False))
    # Every character, the space among them, and padding, EOS and unknown.
    needed = len(set("".join(TEXT))) + 3
    with pytest.raises(UserError, match=f"train 5 pieces: .* smaller .* 5 vs {needed}"):
        training.train(TEXT, 5, False)
    with pytest.raises(UserError, match="no text"):
        training.train([], 34, False)


def test_a_task_that_does_not_tokenise_text_is_reported():
    with pytest.raises(UserError, match="toy_pairs has no step seqio.preprocessors.tokenize"):
        list(training.lines("toy_pairs", "train", 1))
