"""Building blocks of tasks: features, preprocessing steps, postprocessing, mixing rates."""

import functools
import json
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import seqio
import t5.data.preprocessors
import tensorflow as tf

from switch_jax.tasks import named_vocabularies
from switch_jax.utils.fields import short_repr
from switch_jax.utils.json_text import parse_json

_LINES_AT_ONCE = 256  # that Python parses


def features(vocabulary: seqio.Vocabulary) -> dict[str, seqio.Feature]:
    """The features 'inputs', optional before span corruption, and 'targets': int32 [L] with EOS."""
    return {
        "inputs": seqio.Feature(vocabulary, add_eos=True, required=False),
        "targets": seqio.Feature(vocabulary, add_eos=True),
    }


T5_FEATURES = features(named_vocabularies.T5)

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


def parse_json_lines(
    dataset: tf.data.Dataset, field_names: Sequence[str] = ("inputs", "targets")
) -> tf.data.Dataset:
    """Makes of each line, a JSON object, an example with some of its fields, which must be texts.

    It stands beside `t5.data.preprocessors.parse_tsv`, for a `seqio.TextLineDataSource`. Empty
    lines are left out. TensorFlow has no JSON, so Python parses a few hundred lines at a time.
    """

    def parse(lines: np.ndarray) -> list[Any]:
        """Bytes [N] to bytes [M] for each field, and what is wrong with the next line, or ""."""
        rows, problem = [], ""
        for line in filter(bytes.strip, lines):
            try:
                rows.append(_texts(line, field_names))
            except ValueError as error:
                problem = f"{error}, in the line {line.decode(errors='replace')!r}"
                break
        columns = [np.array([row[i] for row in rows], object) for i in range(len(field_names))]
        return [*columns, problem]

    def fails(problem: bytes) -> bool:
        """Raises ValueError if there is a problem; else False."""
        if problem:
            raise ValueError(problem.decode())
        return False

    def examples(lines: tf.Tensor) -> tf.data.Dataset:
        *columns, problem = tf.numpy_function(parse, [lines], [tf.string] * (len(field_names) + 1))
        columns = [tf.ensure_shape(column, [None]) for column in columns]
        rows = tf.data.Dataset.from_tensor_slices(dict(zip(field_names, columns, strict=True)))
        # The examples before the problem come first, so that they can be counted.
        end = tf.data.Dataset.from_tensors(dict.fromkeys(field_names, tf.ensure_shape(problem, [])))
        return rows.concatenate(end.filter(lambda _: tf.numpy_function(fails, [problem], tf.bool)))

    return dataset.batch(_LINES_AT_ONCE).flat_map(examples)


def _texts(line: bytes, field_names: Sequence[str]) -> list[bytes]:
    """The fields of a line of JSON as UTF-8; the ValueError says what is wrong with the line."""
    try:
        row = parse_json(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: column {error.colno}: {error.msg}") from error
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    for name in field_names:
        if name not in row:
            raise ValueError(f"no {name!r}")
        if not isinstance(row[name], str):
            raise ValueError(f"{name!r} is {short_repr(row[name])}, and not text")
    return [row[name].encode() for name in field_names]


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
