"""What several families share: features, preprocessing steps, answers as text, languages' rates."""

import functools
import unicodedata
from typing import Any

import seqio
import t5.data.preprocessors
import tensorflow as tf

from switch_jax.data import vocabularies


def features(vocabulary: seqio.Vocabulary) -> dict[str, seqio.Feature]:
    """'inputs' and 'targets', each int32 [L] that ends with EOS.

    The inputs are not required before the last step, since span corruption makes them.
    """
    return {
        "inputs": seqio.Feature(vocabulary, add_eos=True, required=False),
        "targets": seqio.Feature(vocabulary, add_eos=True),
    }


T5_FEATURES = features(vocabularies.T5)

# After a step that gives 'inputs' and 'targets' as strings.
TEXT_TO_TEXT = (
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(),
    seqio.preprocessors.append_eos_after_trim,
)

# For records with a 'text'. The steps of T5's c4_v220_span_corruption: 15 % of the tokens, in
# spans of 3 on average.
SPAN_CORRUPTION = (
    functools.partial(seqio.preprocessors.rekey, key_map={"inputs": None, "targets": "text"}),
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(),
    t5.data.preprocessors.span_corruption,
    seqio.preprocessors.append_eos_after_trim,
)


@seqio.map_over_dataset
def trivia_qa(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The question, the answer's 'value', and its 'aliases' to be scored against."""
    return {
        "inputs": tf.strings.join(["trivia_qa question: ", record["question"]]),
        "targets": record["answer"]["value"],
        "answers": record["answer"]["aliases"],
    }


def answer_text(answer: str, **unused: Any) -> str:
    """A generated answer or its target, as compared: case and runs of spaces do not count.

    Nor does what SentencePiece's normalisation changes (NFKC), or else a target with such a
    character could never be met.
    """
    return " ".join(unicodedata.normalize("NFKC", answer).lower().split())


def language_rate(examples: int) -> float:
    """mT5's: rare languages come more often than their share (https://arxiv.org/abs/2010.11934)."""
    return examples**0.3
