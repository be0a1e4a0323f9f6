"""Vocabularies that are trained on a task's text before it is tokenised."""

import itertools

import pytest
import sentencepiece
import seqio

from switch_jax.data.catalogue import vocabulary_training as training
from switch_jax.tasks import english
from switch_jax.utils.errors import UserError
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


def test_ids_and_size_and_the_same_model_of_the_same_text():
    trained = training.train(TEXT, 34, False)
    assert training.train(list(TEXT), 34, False) == trained
    model = sentencepiece.SentencePieceProcessor(model_proto=trained)
    assert (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id()) == (0, 1, 2, -1)
    assert model.get_piece_size() == 34
    assert model.decode(model.encode("black wizards")) == "black wizards"
    assert model.unk_id() in model.encode("日")


def test_byte_fallback_knows_every_character():
    model = sentencepiece.SentencePieceProcessor(model_proto=training.train(TEXT, 288, True))
    # The 256 bytes follow padding, EOS and unknown.
    assert model.encode("日")[-3:] == [3 + byte for byte in "日".encode()]


def test_impossible_sizes_are_reported():
    with pytest.raises(UserError, match="train 9999 pieces: .* too high .* a value <= "):
        training.train(TEXT, 9999, False)
    with pytest.raises(UserError, match="no text"):
        training.train([], 34, False)


def test_a_task_that_does_not_tokenise_text_is_reported():
    with pytest.raises(UserError, match="toy_pairs has no step seqio.preprocessors.tokenize"):
        list(training.lines("toy_pairs", "train", 1))
