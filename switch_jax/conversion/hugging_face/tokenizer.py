"""Reads and writes the tokenizer's files in a Hugging Face folder."""

import json
from pathlib import Path
from typing import Any

from etils import epath

from switch_jax.config import DataConfig
from switch_jax.config.stack import StackConfig
from switch_jax.conversion.hugging_face.folder import SENTENCEPIECE, TOKENIZER_CONFIG
from switch_jax.conversion.hugging_face.tokenizer_json import tokenizer_json
from switch_jax.conversion.source import read_small_file
from switch_jax.data.catalogue.configured_tasks import all_tasks, vocabularies
from switch_jax.data.catalogue.vocabularies import ensure_loaded, fingerprint, get_vocabulary
from switch_jax.storage import is_file, local_copy
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio

# The ids of padding, end and unknown in all T5 models.
_IDS = (0, 1, 2)


def sentencepiece_file(folder: epath.Path, rows: int) -> epath.Path | None:
    """Finds the SentencePiece model; UserError if it is damaged or has more ids than `rows`."""
    file = folder / SENTENCEPIECE
    if not is_file(file):
        return None
    read_small_file(file)  # first: the vocabulary would take a file of any size
    ids = get_vocabulary(str(file)).vocab_size
    if ids > rows:
        raise UserError(
            f"{file} has {ids} ids, and the model's embedding {rows} rows: it is the tokenizer of "
            "another model"
        )
    return file


def tokenizer_files(data: DataConfig, first_stack: StackConfig) -> dict[str, bytes]:
    """Makes Hugging Face's files of the vocabulary, by name; UserError if none give its ids.

    They make of a text what the first stack of a model reads as inputs: where it is causal, with an
    id 0 in front, from which it predicts the first token; and with the end token behind, where the
    task's inputs end with it. Inputs without a length are a beginning of targets, without an end.
    They make of ids the text that `switch_jax infer` gives, without sentinels and unknown tokens.
    """
    found = vocabularies(data)
    inputs = all_tasks(data)[0].output_features.get("inputs")
    continues = "inputs" not in data.task_feature_lengths
    ends = inputs is not None and inputs.add_eos and not continues
    if len(set(map(fingerprint, found.values()))) > 1:
        raise UserError(
            f"{data.mixture_or_task_name} has one vocabulary for inputs and another for targets: a "
            "Hugging Face folder holds one tokenizer"
        )
    targets = found["targets"]
    if not isinstance(targets, seqio.SentencePieceVocabulary):
        raise UserError(
            f"the vocabulary is a {type(targets).__name__}, whose sentinels Hugging Face's "
            "tokenizers number otherwise: only SentencePiece vocabularies can be written"
        )
    pieces = ensure_loaded(targets).tokenizer
    ids = (pieces.pad_id(), pieces.eos_id(), pieces.unk_id())
    if ids != _IDS:
        raise UserError(
            f"the vocabulary {targets.sentencepiece_model_file} has the ids {ids} for padding, end "
            f"and unknown; Hugging Face's models are written with {_IDS}"
        )
    content = Path(local_copy(targets.sentencepiece_model_file)).read_bytes()
    pad, eos, unk = (pieces.IdToPiece(i) for i in _IDS)
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # which takes tokenizer.json as it is
        "extra_ids": targets.extra_ids,  # 0 where the file holds them itself, as mT5's does
        "pad_token": pad,
        "eos_token": eos,
        "unk_token": unk,
        "model_input_names": ["input_ids", "attention_mask"],
    }
    if first_stack.causal:  # padding is on the left: texts of a batch are continued at one place
        settings |= {"bos_token": pad, "padding_side": "left"}
    described = tokenizer_json(
        content, targets.extra_ids, begins=first_stack.causal, ends=ends, continues=continues
    )
    return {
        SENTENCEPIECE: content,
        TOKENIZER_CONFIG: (json.dumps(settings, indent=2) + "\n").encode(),
        "tokenizer.json": (json.dumps(described, ensure_ascii=False) + "\n").encode(),
    }
