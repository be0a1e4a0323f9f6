"""Vocabularies by name and file, in place of a task's own."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
import sentencepiece
import seqio
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from switch_jax.config import DataConfig
from switch_jax.data.catalogue import vocabularies
from switch_jax.data.catalogue.checks import open_tasks
from switch_jax.data.catalogue.configured_tasks import vocabulary_size
from switch_jax.data.catalogue.registry import get_mixture_or_task, get_tasks, mixing_rates
from switch_jax.data.catalogue.task_preview import first_examples
from switch_jax.tasks.english import DATA
from switch_jax.utils.errors import UserError
from tests.data.helpers import features, lines

LENGTHS = {"inputs": 64, "targets": 32}
ENGLISH = str(DATA / "english_1000.model")
BIBLE = DataConfig("bible_span_corruption", LENGTHS, split="validation")


def _train(folder: Path, **options: int) -> str:
    """A SentencePiece model's path."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["judge my vow of black quartz"] * 20),
        model_writer=model,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "vocab_size": 30} | options,
    )
    (folder / "own.model").write_bytes(model.getvalue())
    return str(folder / "own.model")


def test_names():
    for name, task in (("t5", "glue_cola_v002"), ("t5", "c4_span_corruption"), ("mt5", "mc4.en")):
        assert (
            vocabularies.get_vocabulary(name)
            == get_mixture_or_task(task).output_features["inputs"].vocabulary
        )
    # Padding, EOS, unknown, the bytes, the sentinels.
    assert vocabularies.get_vocabulary("byte").vocab_size == 3 + 256 + 100
    assert vocabularies.get_vocabulary("byte").encode("a\n") == [3 + 97, 3 + 10]


def test_the_fingerprint_of_a_vocabulary_is_the_content_of_its_file(tmp_path):
    copy = tmp_path / "copy.model"
    copy.write_bytes(Path(ENGLISH).read_bytes())
    names = (ENGLISH, str(copy), _train(tmp_path), "byte")
    found = [vocabularies.fingerprint(vocabularies.get_vocabulary(name)) for name in names]
    assert found[0] == found[1] and len(set(found)) == 3
    sentinels = seqio.SentencePieceVocabulary(ENGLISH, 7)  # differs only in the ids of sentinels
    assert vocabularies.fingerprint(sentinels) == found[0]


def test_a_task_may_name_a_file_in_a_bucket(bucket_path):
    (bucket_path / "own.model").write_bytes(Path(ENGLISH).read_bytes())
    found = seqio.SentencePieceVocabulary(f"{bucket_path}/own.model", 7)
    here = seqio.SentencePieceVocabulary(ENGLISH, 7)
    assert vocabularies.fingerprint(found) == vocabularies.fingerprint(here)
    assert found.encode("In the beginning") == here.encode("In the beginning")


def test_a_file_with_sentinels_of_its_own_gets_no_more(tmp_path):
    path = _train(tmp_path)
    model = ModelProto.FromString(Path(path).read_bytes())
    size = len(model.pieces)
    for number in (4, 3, 2, 1, 0):  # the first one last, as in mT5's file
        piece = f"▁<extra_id_{number}>"
        model.pieces.add(piece=piece, type=ModelProto.SentencePiece.USER_DEFINED)
    Path(path).write_bytes(model.SerializeToString())
    found = vocabularies.get_vocabulary(path)
    assert (found.vocab_size, vocabularies.num_sentinels(found)) == (size + 5, 5)
    # Inputs of 256 have 13 masked spans.
    config = dataclasses.replace(BIBLE, vocabulary=path)
    config = dataclasses.replace(config, task_feature_lengths={"inputs": 256, "targets": 64})
    with pytest.raises(UserError, match="its vocabulary has 5 sentinels"):
        open_tasks(config)


def test_it_replaces_what_a_task_is_written_in():
    config = dataclasses.replace(BIBLE, vocabulary="byte")
    assert vocabulary_size(BIBLE) == 1100
    assert vocabulary_size(config) == 359
    # The largest id is the first sentinel, <extra_id_0>.
    assert "targets, 14 tokens: 358 " in first_examples(config, 1)


def test_caches_are_refused():
    with pytest.raises(UserError, match="vocabulary = 'byte' does not go with USE_CACHED_TASKS ="):
        dataclasses.replace(BIBLE, vocabulary="byte", use_cached_tasks=True)


def test_features_that_are_not_text_are_refused():
    config = DataConfig("toy_pairs", {"inputs": 10, "targets": 7}, vocabulary="byte")
    with pytest.raises(UserError, match="toy_pairs has 'inputs' that are not text .PassThroughVoc"):
        open_tasks(config)


def test_unusable_files_are_reported(tmp_path):
    for path in (str(tmp_path / "none.model"), str(DATA / "README.md")):
        message = f"no SentencePiece model is found at {path} .* a copy, or to 'byte'$"
        with pytest.raises(UserError, match=message):
            open_tasks(dataclasses.replace(BIBLE, vocabulary=path))
    model = _train(tmp_path, pad_id=3, bos_id=0)
    with pytest.raises(UserError, match=f"{model} has padding 3 and EOS 1: padding must be 0"):
        open_tasks(dataclasses.replace(BIBLE, vocabulary=model))


def test_an_unreadable_vocabulary_of_a_task_is_reported(bucket_path, register):
    unreadable = features(seqio.SentencePieceVocabulary(f"{bucket_path}/none.model"))
    register("no_vocabulary", lines(DATA / "README.md"), [], unreadable)
    with pytest.raises(UserError, match=f"at {bucket_path}/none.model .it cannot be read.: set VO"):
        open_tasks(DataConfig("no_vocabulary", LENGTHS))


def test_rates_are_those_of_the_registered_tasks(register):
    register.mixture("nested", [("english_span_corruption", 3.0), ("toy_pairs", 1.0)])
    tasks = [task for task in get_tasks("nested") if task.name != "toy_pairs"]
    replaced = [vocabularies.with_vocabulary(task, "byte") for task in tasks]
    # Three tasks share the rate of the mixture that they are in.
    assert mixing_rates("nested", replaced) == [1.0, 1.0, 1.0]


def test_content_is_all_but_eos_and_sentinels():
    is_content = vocabularies.content_tokens(vocabularies.get_vocabulary(ENGLISH))
    assert len(is_content) == 1100
    np.testing.assert_array_equal(np.flatnonzero(~is_content), [1, *range(1000, 1100)])


def test_a_token_is_its_piece_of_sentencepiece_or_its_text():
    def pieces(name, text):
        found = vocabularies.get_vocabulary(name)
        return [vocabularies.piece(found, token) for token in [*found.encode(text), 1]]

    assert pieces(ENGLISH, "to be") == ["▁to", "▁be", "</s>"]
    assert pieces(ENGLISH, "<extra_id_0>") == ["<extra_id_0>", "</s>"]
    # White space, parts of a letter, and EOS, which is no text.
    expected = ["a", "▁", r"\n", r"\t", f"<{0xC3 + 3}>", f"<{0xA9 + 3}>", "<1>"]
    assert pieces("byte", "a \n\té") == expected
    assert vocabularies.piece(seqio.PassThroughVocabulary(10), 3) == "<3>"
