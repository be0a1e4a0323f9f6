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
_ANY = 2**16  # of the spaces in front of a text, which SentencePiece all drops


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}


def _byte_character(byte: int) -> str:
    """The character that the ByteLevel decoder takes for a byte from 0x80 on, as in GPT-2.

    It is that of Latin-1, or another where Latin-1's cannot be printed.
    """
    if byte == 0xAD:
        return "\u0143"
    return chr(byte if byte > 0xA0 else byte - 0x80 + 0x122)


# The ByteFallback decoder takes a run of bytes whole: if one byte is no character, then no byte is.
# ByteLevel looks at each character, but it also takes letters of other tokens for bytes: a mark in
# front prevents that. Bytes of ASCII are characters in any case.
_MARK = "\U0010ffff"  # no text has it
_BYTE_DECODERS = [
    _replace({"Regex": "^(?!<0x[0-9A-F]{2}>$)"}, _MARK),
    *[_replace({"String": f"<0x{b:02X}>"}, _byte_character(b)) for b in range(0x80, 0x100)],
    {"type": "ByteFallback"},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
    _replace({"String": _MARK}, ""),
]


def tokenizer_json(
    model: bytes, sentinels: int, *, begins: bool, ends: bool, continues: bool
) -> dict[str, Any]:
    """Makes the tokenizer that gives the ids of a SentencePiece model, and its texts of ids.

    It `begins` each pair of texts, or text, with id 0; and `ends` each text with the end token. A
    text of ids keeps the space of its first piece where it `continues` another text.

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
                *(_BYTE_DECODERS if proto.trainer_spec.byte_fallback else [{"type": "Fuse"}]),
                *[{"type": "Strip", "content": _SPACE, "start": _ANY, "stop": 0}] * (not continues),
                _replace({"String": _SPACE}, " "),
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
