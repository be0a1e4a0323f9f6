"""Reading of records to predict or score: text under 'inputs' and, to be scored, 'targets'."""

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.configured_tasks import all_tasks, vocabularies
from switch_jax.data.catalogue.vocabularies import decode_ids, num_unknown
from switch_jax.data.packing import Example
from switch_jax.storage import explain_read_errors, storage_path
from switch_jax.utils.errors import UserError, not_utf8
from switch_jax.utils.fields import short_repr
from switch_jax.utils.json_text import parse_json
from switch_jax.utils.tensorflow_setup import seqio

Record = dict[str, str]


class TextExample(NamedTuple):
    """An example as text, which is repeated in the output, and as ids, which the model takes.

    Attributes:
      text: 'inputs' and, if there are any, 'targets'.
      ids: int32 [tokens] by feature, EOS included.
      cut: how many tokens of a text are left out of the ids, by feature, where any are.
      unknown: how many of the ids are unknown, by feature, where any are.
    """

    text: Record
    ids: Example
    cut: dict[str, int]
    unknown: dict[str, int]


STANDARD_INPUT = "-"


def read_records(path: str, stdin: BinaryIO | None = None) -> Iterator[Record]:
    """Yields the records of a file, or of standard input, `stdin`, where `path` is '-'.

    FILE.jsonl has JSON objects; any other file is UTF-8 text with an input on each line; standard
    input may be either. Raises UserError where the file cannot be read, or a record, which it
    names, has no text as 'inputs'.
    """
    if path == STANDARD_INPUT:
        yield from _from_lines(stdin or sys.stdin.buffer, "standard input", json_lines=None)
        return
    with explain_read_errors(path):
        with storage_path(path).open("rb") as lines:
            yield from _from_lines(lines, path, json_lines=path.endswith((".jsonl", ".json")))


def _from_lines(lines: Iterable[bytes], name: str, json_lines: bool | None) -> Iterator[Record]:
    """Yields a record for each line; with `json_lines` None a first brace tells that it is JSON."""
    for number, line in enumerate(lines, start=1):
        source, line = f"{name}, line {number}", line.removesuffix(b"\n").removesuffix(b"\r")
        if json_lines is None:
            json_lines = line.startswith(b"{")
        if json_lines and not line.strip():
            continue
        try:
            text = line.decode()
            yield _checked(parse_json(text), source) if json_lines else {"inputs": text}
        except UnicodeDecodeError as error:
            raise UserError(f"{source}: {not_utf8(error.start)}") from error
        except ValueError as error:
            raise UserError(f"{source} is not valid JSON: {error}") from error


def _checked(record: object, source: str) -> Record:
    """The record's texts; raises UserError, which names the source, if it is invalid."""
    if not isinstance(record, dict) or not isinstance(record.get("inputs"), str):
        raise UserError(f'{source} has no text as \'inputs\': write {{"inputs": "..."}}')
    texts = {name: text for name, text in record.items() if isinstance(text, str)}
    "".join(texts.values()).encode()  # raises where a text has half of a character
    return texts


def check_texts(name: str, texts: Any) -> None:
    """Raises UserError, which names the argument, if it is not a list of texts."""
    if isinstance(texts, str | bytes) or not isinstance(texts, Sequence):
        raise UserError(f'{name} = {short_repr(texts)}: write a list of texts, as ["..."]')
    for number, text in enumerate(texts):
        check_text(f"{name}[{number}]", text)


def check_text(name: str, text: Any) -> None:
    """Raises UserError, which names the argument, if it is no text, or has half of a character."""
    if not isinstance(text, str):
        raise UserError(f"{name} = {short_repr(text)}: write a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{name} = {short_repr(text)} is no text: {error}") from error


class TextFeature(NamedTuple):
    """How a text becomes a feature of an example.

    Attributes:
      vocabulary: seqio's.
      length: most ids, EOS included; None: those that the targets leave of a row, from the end of
        the text, since these go on with it.
      end: EOS, where the task ends the feature with it.
    """

    vocabulary: seqio.Vocabulary
    length: int | None
    end: list[int]

    def ids(self, text: str, most: int) -> tuple[np.ndarray, int, int]:
        """At most so many ids, int32, how many are cut off, and how many are unknown."""
        ids, room = self.vocabulary.encode(text), max(0, most - len(self.end))
        cut = max(0, len(ids) - room)
        ids = ids[cut:] if self.length is None else ids[:room]
        unknown = num_unknown(self.vocabulary, ids)
        return np.array([*ids, *self.end], np.int32), cut, unknown


def text_features(data: DataConfig) -> dict[str, TextFeature]:
    """Of 'inputs' and 'targets'; raises UserError where a vocabulary is not found.

    Inputs without a length are the beginning of what a task has as targets.
    """
    declared, found = all_tasks(data)[0].output_features, vocabularies(data)
    features = {}
    for name, length in data.task_feature_lengths.items():
        vocabulary = found[name]
        ends = declared[name].add_eos and vocabulary.eos_id is not None
        features[name] = TextFeature(vocabulary, length, [vocabulary.eos_id] if ends else [])
    return {"inputs": TextFeature(found["targets"], None, []), **features}


def encode(
    record: Record, features: Mapping[str, TextFeature], max_new_tokens: int = 0
) -> TextExample:
    """The ids of a record's texts, cut off to their lengths; without 'targets', no targets.

    Inputs without a length leave room for the targets or, without targets, for `max_new_tokens`.
    """
    example, counts = {"targets": np.zeros(0, np.int32)}, {}
    for name in sorted(features.keys() & record.keys(), reverse=True):  # the targets first
        most = features[name].length
        if most is None:
            rest = len(example["targets"]) if "targets" in record else max_new_tokens
            most = (features["targets"].length or 0) - rest
        example[name], *counts[name] = features[name].ids(record[name], most)
    cut = {name: cut for name, (cut, _) in sorted(counts.items()) if cut}
    unknown = {name: number for name, (_, number) in sorted(counts.items()) if number}
    return TextExample(record, example, cut, unknown)


def text_of(tokens: np.ndarray, example: Example, features: Mapping[str, TextFeature]) -> str:
    """The text of an example's predicted ids; where they go on with its inputs, behind those."""
    decode = functools.partial(decode_ids, features["targets"].vocabulary)
    alone = decode(tokens.tolist())
    if features["inputs"].length is not None:
        return alone
    before = example.get("inputs", tokens[:0]).tolist()
    start, whole = decode(before), decode([*before, *tokens.tolist()])
    return whole[len(start) :] if whole.startswith(start) else alone
