"""Building blocks of tasks: features, preprocessing steps, postprocessing, mixing rates."""

import functools
import json
import unicodedata
from collections.abc import Callable, Mapping, Sequence
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


@seqio.map_over_dataset
def as_targets(record: Any) -> dict[str, tf.Tensor]:
    """The text of a record with a 'text', or a line of text, as targets."""
    return {"targets": record["text"] if isinstance(record, dict) else record}


# From text to tokens. What follows makes rows of them.
_TO_TOKENS = (as_targets, seqio.preprocessors.tokenize, seqio.CacheDatasetPlaceholder())
_END = seqio.preprocessors.append_eos_after_trim

# The steps of T5's c4_v220_span_corruption, c4_v220_prefix_lm and c4_v220_full_lm, for records with
# a 'text' and for lines. The first masks 15 % of the tokens in spans of 3 on average.
SPAN_CORRUPTION = (*_TO_TOKENS, t5.data.preprocessors.span_corruption, _END)
PREFIX_LM = (*_TO_TOKENS, t5.data.preprocessors.prefix_lm, _END)
FULL_LM = (*_TO_TOKENS, t5.data.preprocessors.full_lm)
OBJECTIVES = {"span_corruption": SPAN_CORRUPTION, "prefix_lm": PREFIX_LM, "full_lm": FULL_LM}


def in_mode(
    dataset: tf.data.Dataset,
    sequence_length: Mapping[str, int],
    output_features: Mapping[str, seqio.Feature],
    *,
    word: str,
    step: Callable[..., tf.data.Dataset],
) -> tf.data.Dataset:
    """Makes inputs and targets by t5's `span_corruption` or `prefix_lm`, after a mode word.

    The word, as "[R]", stands before the inputs, and its tokens count among theirs.
    """
    ids = output_features["inputs"].vocabulary.encode(word)
    left = {**sequence_length, "inputs": sequence_length["inputs"] - len(ids)}

    def add_word(example: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**example, "inputs": tf.concat([ids, example["inputs"]], 0)}

    return step(dataset, left, output_features).map(add_word)


def _denoiser(word: str, mean_span: float, density: float) -> Callable[..., tf.data.Dataset]:
    masked = functools.partial(
        t5.data.preprocessors.span_corruption,
        mean_noise_span_length=mean_span,
        noise_density=density,
    )
    return functools.partial(in_mode, word=word, step=masked)


# The denoisers of UL2 (table 1 of https://arxiv.org/abs/2205.05131), by the end of their tasks'
# names.
UL2_DENOISERS = {
    "r_3_15": _denoiser("[R]", 3.0, 0.15),
    "r_8_15": _denoiser("[R]", 8.0, 0.15),
    "x_3_50": _denoiser("[X]", 3.0, 0.5),
    "x_8_50": _denoiser("[X]", 8.0, 0.5),
    "x_64_15": _denoiser("[X]", 64.0, 0.15),
    "x_64_50": _denoiser("[X]", 64.0, 0.5),
    # One span at the end of L tokens, of L / 4 on average: from none to L / 2.
    "s": functools.partial(
        in_mode,
        word="[S]",
        step=functools.partial(t5.data.preprocessors.prefix_lm, noise_density=0.25),
    ),
}


def add_text_task(
    name: str, steps: Sequence[Any], source: seqio.DataSource, vocabulary: seqio.Vocabulary
) -> None:
    """Registers a task for pretraining on text: records with a 'text', or lines."""
    seqio.TaskRegistry.add(
        name,
        source=source,
        preprocessors=steps,
        output_features=features(vocabulary),
        metric_fns=[],
    )


def add_text_tasks(name: str, source: seqio.DataSource, vocabulary: seqio.Vocabulary) -> None:
    """Registers NAME_span_corruption, NAME_prefix_lm and NAME_full_lm of one source of text."""
    for objective, steps in OBJECTIVES.items():
        add_text_task(f"{name}_{objective}", steps, source, vocabulary)


def add_language_tasks(
    name: str,
    source_of: Callable[[str], seqio.DataSource],
    examples: Mapping[str, int],
    vocabulary: seqio.Vocabulary,
) -> None:
    """Registers NAME.CODE, NAME_prefix_lm.CODE and NAME_full_lm.CODE, and mixtures of each.

    NAME alone masks spans. The mixtures have mT5's rates. `source_of` gives the text of a language
    by its code, and `examples` has the number of examples by code. In names `-` of a code is `_`.
    """
    for objective, steps in OBJECTIVES.items():
        mixture = name if steps is SPAN_CORRUPTION else f"{name}_{objective}"
        rates = {}
        for code, count in examples.items():
            task = f"{mixture}.{code.replace('-', '_')}"
            add_text_task(task, steps, source_of(code), vocabulary)
            rates[task] = language_rate(count)
        seqio.MixtureRegistry.add(mixture, list(rates.items()))


def add_ul2(name: str, source: seqio.DataSource, vocabulary: seqio.Vocabulary) -> None:
    """Registers the mixture NAME_ul2 of UL2's seven denoisers of a source of text, at equal rates.

    Their tasks are ul2.NAME.r_3_15 and so on. Half of the tokens in spans of 3 are many spans, and
    spans of 64 need long rows: with 100 sentinels inputs of 190 to 400 tokens serve, with 128 also
    512. Targets need about as many tokens as inputs.
    """
    tasks = {f"ul2.{name}.{kind}": step for kind, step in UL2_DENOISERS.items()}
    for task, step in tasks.items():
        add_text_task(task, (*_TO_TOKENS, step, _END), source, vocabulary)
    seqio.MixtureRegistry.add(f"{name}_ul2", list(tasks), default_rate=1.0)


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
