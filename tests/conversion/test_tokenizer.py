"""What a Hugging Face tokenizer gives; vocabularies that it cannot express, and none."""

import json

import numpy as np
import pytest
from sentencepiece.sentencepiece_model_pb2 import ModelProto

from switch_jax.config import DataConfig
from switch_jax.conversion.hugging_face.folder import vocabulary_name
from switch_jax.conversion.hugging_face.tokenizer import tokenizer_files
from switch_jax.conversion.hugging_face.tokenizer_json import tokenizer_json
from switch_jax.data.catalogue.vocabularies import decode_ids, get_vocabulary
from switch_jax.inference.input_records import TextFeature, text_of
from switch_jax.utils.errors import UserError
from tests.conversion.folders import VOCABULARY
from tests.trainer.helpers import ONE_STACK, STACKS


def files(name):
    lengths = {"inputs": 8, "targets": 8}
    return tokenizer_files(
        DataConfig("english_span_corruption", lengths, vocabulary=name), STACKS[0]
    )


def changed(path, **fields):
    model = ModelProto.FromString(VOCABULARY.read_bytes())
    for name, value in fields.items():
        setattr(model.trainer_spec, name, value)
    path.write_bytes(model.SerializeToString())
    return str(path)


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UserError, match="is a ByteVocabulary, whose sentinels Hugging Face's tok"):
        files("byte")
    with pytest.raises(UserError, match="but not of the type unigram, as T5's are"):
        files(changed(tmp_path / "bpe.model", model_type=2))
    other = ModelProto.FromString(VOCABULARY.read_bytes())
    other.pieces[2].CopyFrom(other.pieces[3])
    other.pieces[3].CopyFrom(ModelProto.FromString(VOCABULARY.read_bytes()).pieces[2])
    (tmp_path / "other.model").write_bytes(other.SerializeToString())
    with pytest.raises(UserError, match=r"other.model has the ids \(0, 1, 3\) for padding, end"):
        files(str(tmp_path / "other.model"))


@pytest.mark.parametrize(
    ("task", "lengths", "stacks", "around"),
    [
        ("english_full_lm", {"targets": 8}, ONE_STACK, ["<pad>", "A"]),
        ("english_prefix_lm", {"targets": 8}, ONE_STACK, ["<pad>", "A"]),
        ("english_prefix_lm", {"inputs": 8, "targets": 8}, ONE_STACK, ["<pad>", "A", "</s>"]),
        ("english_span_corruption", {"inputs": 8, "targets": 8}, STACKS, ["A", "</s>"]),
    ],
)
def test_a_text_is_what_the_first_stack_reads_as_inputs(task, lengths, stacks, around):
    found = tokenizer_files(DataConfig(task, lengths), stacks[0])
    steps = json.loads(found["tokenizer.json"])["post_processor"]["single"]
    assert [its["id"] for step in steps for its in step.values()] == around
    settings = json.loads(found["tokenizer_config.json"])
    assert ("bos_token" in settings) == (around[0] == "<pad>")


def test_a_folder_without_a_vocabulary_has_that_of_the_released_models(tmp_path):
    assert vocabulary_name(tmp_path, "t5") == "t5"
    assert vocabulary_name(tmp_path, "switch_transformers") == "t5"
    assert vocabulary_name(tmp_path, "mt5") == "mt5"
    assert vocabulary_name(tmp_path, "qwen3_moe") is None
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "ByT5Tokenizer"}')
    assert vocabulary_name(tmp_path, "mt5") == "byte"


@pytest.mark.parametrize("file", ["english_1000.model", "udhr_8000.model"])  # the second has bytes
@pytest.mark.parametrize("continues", [False, True])
def test_the_text_of_ids_is_that_of_infer(file, continues):
    """Of any ids, also where bytes are no character, or pieces are spaces."""
    tokenizers = pytest.importorskip("tokenizers")
    path = VOCABULARY.parent / file
    ours = get_vocabulary(str(path))
    described = tokenizer_json(path.read_bytes(), 100, begins=True, ends=False, continues=continues)
    theirs = tokenizers.Tokenizer.from_str(json.dumps(described))
    model, rng = ours.tokenizer, np.random.default_rng(0)
    often = [0, model.PieceToId("▁"), *filter(model.IsByte, range(300))]
    features = {
        "inputs": TextFeature(ours, None if continues else 8, []),
        "targets": TextFeature(ours, 8, [1]),
    }
    prompt = np.array(ours.encode(" the Lord "))
    for _ in range(300):
        drawn = [rng.integers(3, model.GetPieceSize() - 100, 16), rng.choice(often, 16)]
        ids = np.where(rng.random(16) < 0.5, *drawn)
        assert theirs.decode(ids.tolist()) == text_of(ids, {"inputs": prompt}, features), ids


def test_bytes_that_are_no_character_are_replaced_as_python_does():
    found = get_vocabulary(str(VOCABULARY.parent / "udhr_8000.model"))
    for text in (b"\xc3\xa9\xe2", b"\xe2\x82\xc3\xa9", b"A\xff", b"\xf0\x9f\x98\x80\xf0\x9f"):
        ids = [found.tokenizer.PieceToId(f"<0x{byte:02X}>") for byte in text]
        assert decode_ids(found, [*ids, 1, 7]) == text.decode(errors="replace")
