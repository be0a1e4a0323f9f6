"""Building blocks of tasks: features, preprocessing steps, postprocessing, mixing rates."""

import functools
import unicodedata
from typing import Any

import seqio
import t5.data.preprocessors
import tensorflow as tf

from switch_jax.tasks import vocabularies


def features(vocabulary: seqio.Vocabulary) -> dict[str, seqio.Feature]:
    """The features 'inputs' and 'targets', each int32 [L] ending with EOS.

    The inputs are optional, because before span corruption there are only targets.
    """
    return {
        "inputs": seqio.Feature(vocabulary, add_eos=True, required=False),
        "targets": seqio.Feature(vocabulary, add_eos=True),
    }


T5_FEATURES = features(vocabularies.T5)

# To be used after a step that gives 'inputs' and 'targets' as strings.
TEXT_TO_TEXT = (
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(),
    seqio.preprocessors.append_eos_after_trim,
)

# For records with a 'text': the steps of T5's c4_v220_span_corruption. They mask 15 % of the tokens
# in spans of 3 on average.
SPAN_CORRUPTION = (
    functools.partial(seqio.preprocessors.rekey, key_map={"inputs": None, "targets": "text"}),
    seqio.preprocessors.tokenize,
    seqio.CacheDatasetPlaceholder(),
    t5.data.preprocessors.span_corruption,
    seqio.preprocessors.append_eos_after_trim,
)


@seqio.map_over_dataset
def trivia_qa(record: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """The question, the 'value' of the answer, and its 'aliases', which count as right too."""
    return {
        "inputs": tf.strings.join(["trivia_qa question: ", record["question"]]),
        "targets": record["answer"]["value"],
        "answers": record["answer"]["aliases"],
    }


def answer_text(answer: str, **unused: Any) -> str:
    """Normalises a generated answer or a target, so that case and spacing do not count.

    Unicode is normalised too (NFKC), as SentencePiece does. Otherwise a target with a character
    that SentencePiece changes could never be generated.
    """
    return " ".join(unicodedata.normalize("NFKC", answer).lower().split())


def language_rate(examples: int) -> float:
    """mT5's mixing rate, which favours rare languages (https://arxiv.org/abs/2010.11934)."""
    return examples**0.3
