"""Vocabularies by name or file, and tasks with another vocabulary than their own."""

import dataclasses
import functools
import hashlib
from collections.abc import Sequence

import numpy as np
from google.protobuf.message import DecodeError
from sentencepiece.sentencepiece_pb2 import SentencePieceText  # type: ignore[attr-defined]

from switch_jax.data.reading import seqio_internals  # noqa: F401  models in buckets are read, too
from switch_jax.storage import local_copy, storage_path
from switch_jax.tasks.named_vocabularies import BYTE, MT5, SENTINELS, T5
from switch_jax.utils.errors import UserError, storage_error
from switch_jax.utils.tensorflow_setup import seqio, tf

_NAMED = {"t5": T5, "mt5": MT5, "byte": BYTE}


@functools.lru_cache
def get_vocabulary(name: str) -> seqio.Vocabulary:
    """The vocabulary for a value of VOCABULARY: 't5', 'mt5', 'byte', or the path of a model.

    T5's 100 sentinels <extra_id_0>, <extra_id_1>, ... are added unless the model ends with
    sentinels. Raises UserError where it is no SentencePiece model with padding 0 and an EOS.
    """
    if name in _NAMED:
        return _NAMED[name]
    try:
        path = local_copy(storage_path(name, "VOCABULARY"))
    except OSError as error:
        raise _not_found(name, "it cannot be read", error) from error
    found = ensure_loaded(seqio.SentencePieceVocabulary(path))
    if found.tokenizer.pad_id() != seqio.PAD_ID or found.tokenizer.eos_id() < 0:
        raise UserError(
            f"the vocabulary {name} has padding {found.tokenizer.pad_id()} and EOS "
            f"{found.tokenizer.eos_id()}: padding must be 0, and there must be an EOS"
        )
    return found if num_sentinels(found) else seqio.SentencePieceVocabulary(path, SENTINELS)


def num_sentinels(found: seqio.Vocabulary) -> int:
    """Number of sentinels, which are the last ids; a SentencePiece file may include them itself."""
    if found.extra_ids or not isinstance(found, seqio.SentencePieceVocabulary):
        return found.extra_ids
    model = ensure_loaded(found).tokenizer
    last = range(model.GetPieceSize() - 1, -1, -1)
    pieces = (model.IdToPiece(i).lstrip("▁") == f"<extra_id_{n}>" for n, i in enumerate(last))
    return next((n for n, is_sentinel in enumerate(pieces) if not is_sentinel), 0)


def content_tokens(found: seqio.Vocabulary) -> np.ndarray:
    """bool [V], by token id: true but for EOS and sentinels, which say nothing about the text."""
    is_content = np.ones(ensure_loaded(found).vocab_size, bool)
    is_content[found.vocab_size - num_sentinels(found) :] = False
    if found.eos_id is not None:
        is_content[found.eos_id] = False
    return is_content


def num_unknown(found: seqio.Vocabulary, ids: Sequence[int] | np.ndarray) -> int:
    """Number of ids that stand for characters which the vocabulary lacks; 0 where it lacks none."""
    return 0 if found.unk_id is None else int(np.sum(np.asarray(ids) == found.unk_id))


def piece(found: seqio.Vocabulary, token: int) -> str:
    """A token as SentencePiece has it, where "▁" is the space before a word.

    Of other vocabularies its text, with "▁" for a space and escapes, as \\n, for what is not
    printed; <ID> where the token is no text by itself.
    """
    if isinstance(found, seqio.SentencePieceVocabulary):
        name = ensure_loaded(found).tokenizer.IdToPiece(token)
        return name.lstrip("▁") if token >= found.vocab_size - num_sentinels(found) else name
    text = found.decode([token])
    if not text or not isinstance(text, str):  # seqio.PassThroughVocabulary gives the ids back
        return f"<{token}>"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.replace(" ", "▁"))


def decode_ids(found: seqio.Vocabulary, ids: list[int]) -> str:
    """The text of ids, up to EOS. Bytes that are no character become "\ufffd" as in Python.

    SentencePiece, which seqio decodes with, has one for each such byte.
    """
    if not isinstance(found, seqio.SentencePieceVocabulary):
        return found.decode(ids)
    model = ensure_loaded(found).tokenizer
    ids = ids[: ids.index(found.eos_id)] if found.eos_id in ids else ids
    ids = [i if i < model.GetPieceSize() else found.unk_id for i in ids]  # an embedding has more
    decoded = SentencePieceText.FromString(model.Decode(ids, out_type="serialized_proto"))
    parts = (
        bytes([int(p.piece[3:5], 16)]) if model.IsByte(p.id) else p.surface.encode()  # "<0xE2>"
        for p in decoded.pieces
    )
    return b"".join(parts).decode(errors="replace")


def ensure_loaded(found: seqio.Vocabulary) -> seqio.Vocabulary:
    """Reads the file of a vocabulary, and returns the vocabulary; UserError if it is no model."""
    try:
        _ = found.vocab_size
    except (tf.errors.OpError, OSError, DecodeError, RuntimeError) as error:
        path, unreadable = found.sentencepiece_model_file, (tf.errors.OpError, OSError)
        reason = "it cannot be read" if isinstance(error, unreadable) else "it is not such a model"
        raise _not_found(path, reason, error) from error
    return found


def _not_found(path: str, reason: str, error: Exception) -> UserError:
    return storage_error(
        f"no SentencePiece model is found at {path} ({reason}): set VOCABULARY to the path of "
        "one on this machine, for example of a copy, or to 'byte'",
        error,
    )


def fingerprint(found: seqio.Vocabulary) -> str:
    """Equal for equal vocabularies, wherever their files are, without added sentinels."""
    name = type(found).__name__
    if isinstance(found, seqio.SentencePieceVocabulary):
        return f"{name} {_hash(ensure_loaded(found).sentencepiece_model_file)}"
    return name


@functools.cache  # the file may be in a bucket
def _hash(path: str) -> str:
    with open(local_copy(path), "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


def with_vocabulary(task: seqio.Task, name: str | None) -> seqio.Task:
    """The task with another vocabulary, unless None; UserError where a feature is not text."""
    if name is None:
        return task
    features = {}
    for key, feature in task.output_features.items():
        old = getattr(feature, "vocabulary", None)
        if old is None or isinstance(old, seqio.PassThroughVocabulary):
            raise UserError(
                f"{task.name} has {key!r} that are not text ({type(old or feature).__name__}), so "
                f"VOCABULARY = {name!r} cannot replace their vocabulary; set it to None"
            )
        features[key] = dataclasses.replace(feature, vocabulary=get_vocabulary(name))
    return task.replace(output_features=features)
