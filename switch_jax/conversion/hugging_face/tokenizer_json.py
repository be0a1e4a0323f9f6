"""Makes tokenizer.json, the file of Hugging Face's tokenizers library, from a SentencePiece model.

T5Tokenizer makes the same from spiece.model, but without the bytes that vocabularies of many
languages use for unknown pieces. With this file Hugging Face uses them.
"""

import base64
from typing import Any

from sentencepiece import sentencepiece_model_pb2 as pb2

from switch_jax.utils.errors import UserError

_SPACE = "▁"  # SentencePiece's
_METASPACE = {
    "type": "Metaspace", "replacement": _SPACE, "prepend_scheme": "always", "split": True
}  # fmt: skip


def tokenizer_json(model: bytes, sentinels: int, *, begins: bool, ends: bool) -> dict[str, Any]:
    """Makes the tokenizer that gives the ids of a SentencePiece model.

    It `begins` each pair of texts, or text, with id 0; and `ends` each text with the end token.

    In the model's file the ids 0, 1 and 2 are padding, end and unknown. Sentinels are added behind
    its pieces, <extra_id_0> last. Raises UserError if it is not a unigram model.
    """
    proto = pb2.ModelProto.FromString(model)  # type: ignore[attr-defined]
    if proto.trainer_spec.model_type != proto.trainer_spec.UNIGRAM:
        raise UserError(
            "the vocabulary is a SentencePiece model, but not of the type unigram, as T5's are: "
            "it cannot be written as a Hugging Face tokenizer"
        )
    vocabulary = [[piece.piece, piece.score] for piece in proto.pieces]
    vocabulary += [[f"<extra_id_{i}>", 0.0] for i in reversed(range(sentinels))]
    special = [0, 1, 2, *range(len(proto.pieces), len(vocabulary))]
    charsmap = base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()
    normalizer = {"type": "Precompiled", "precompiled_charsmap": charsmap}
    pad, eos = vocabulary[0][0], vocabulary[1][0]
    begun = [{"SpecialToken": {"id": pad, "type_id": 0}}] * begins
    ended = [{"SpecialToken": {"id": eos, "type_id": 0}}] * ends
    first, second = ({"Sequence": {"id": name, "type_id": 0}} for name in "AB")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(i, vocabulary[i][0]) for i in special],
        "normalizer": normalizer if charsmap else None,
        "pre_tokenizer": {
            "type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, _METASPACE]
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*begun, first, *ended],
            "pair": [*begun, first, *ended, second, *ended],
            "special_tokens": {
                piece: {"id": piece, "ids": [number], "tokens": [piece]}
                for number, piece in ((0, pad), (1, eos))
            },
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
        "model": {
            "type": "Unigram",
            "unk_id": 2,
            "byte_fallback": proto.trainer_spec.byte_fallback,
            "vocab": vocabulary,
        },
    }  # fmt: skip


def _added_token(number: int, content: str) -> dict[str, Any]:
    """Makes a token that stands for itself in a text, and is left out of decoded texts."""
    options = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return {"id": number, "content": content, **options, "special": True}
