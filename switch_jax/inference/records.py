"""What is to be predicted or scored: records with text under 'inputs' and, to score, 'targets'."""

import io
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import seqio
import tensorflow as tf
from google.protobuf.message import DecodeError

from switch_jax.data.rows import Example
from switch_jax.errors import UserError, storage_error

Record = dict[str, str]
STANDARD_INPUT = "-"


def read_records(path: str, stdin: io.TextIOBase | None = None) -> Iterator[Record]:
    """The records of a file, one by one.

    Args:
      path: FILE.jsonl of JSON objects; FILE.tfrecord, or FILE.tfrecord.gz, of tf.train.Examples
        with bytes features; any other file is text, an input a line; '-' is standard input, JSON
        objects or text.
      stdin: in place of standard input.

    Raises:
      UserError: the file cannot be read, or a record is damaged or has no text as 'inputs'; names
        the file and the record's number.
    """
    if path == STANDARD_INPUT:
        yield from _from_lines(stdin or sys.stdin, "standard input", json_lines=None)
    elif ".tfrecord" in Path(path).name:
        yield from _from_tfrecord(path)
    else:
        try:
            with tf.io.gfile.GFile(path) as lines:
                yield from _from_lines(lines, path, json_lines=path.endswith((".jsonl", ".json")))
        except tf.errors.OpError as error:
            reason = error.message.split(";")[-1]
            raise storage_error(f"{path} cannot be read: {reason}", error) from error


def _from_lines(lines, name: str, json_lines: bool | None) -> Iterator[Record]:
    """Without a word of what the lines are, the first one's look decides."""
    for number, line in enumerate(_decoded(lines, name), start=1):
        line = line.rstrip("\n")
        if json_lines is None:
            json_lines = line.startswith("{")
        if not json_lines:
            yield {"inputs": line}
            continue
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{name}, line {number} is no JSON: {error}") from error
        yield _checked(record, f"{name}, line {number}")


def _decoded(lines: Iterator[str], name: str) -> Iterator[str]:
    try:
        yield from lines
    except UnicodeDecodeError as error:
        raise UserError(f"{name} is no text in UTF-8: {error}") from error


def _from_tfrecord(path: str) -> Iterator[Record]:
    compression = "GZIP" if path.endswith(".gz") else ""
    records = tf.data.TFRecordDataset(path, compression_type=compression).as_numpy_iterator()
    number = 0
    try:
        for number, record in enumerate(records, start=1):
            features = tf.train.Example.FromString(record).features.feature
            values = {name: feature.bytes_list.value for name, feature in features.items()}
            texts = {name: texts[0].decode() for name, texts in values.items() if texts}
            yield _checked(texts, f"{path}, record {number}")
    except (tf.errors.OpError, UnicodeDecodeError, DecodeError) as error:
        message = f"{path}, record {number + 1} cannot be read: {error}"
        raise storage_error(message, error) from error


def _checked(record: object, place: str) -> Record:
    if not isinstance(record, dict) or not isinstance(record.get("inputs"), str):
        raise UserError(f'{place} has no text as \'inputs\': write {{"inputs": "..."}}')
    return {name: text for name, text in record.items() if isinstance(text, str)}


def as_example(
    record: Record, vocabularies: Mapping[str, seqio.Vocabulary], lengths: Mapping[str, int]
) -> Example:
    """Ids of a record's texts, each with EOS at its end; what is too long is cut off before that.

    Args:
      record: its 'targets' may be missing, and are then empty.
      vocabularies: of 'inputs' and 'targets'.
      lengths: most tokens of them, EOS included.
    """
    example = {"targets": np.zeros(0, np.int32)}
    for name in vocabularies.keys() & record.keys():
        vocabulary = vocabularies[name]
        ids = vocabulary.encode(record[name])[: lengths[name] - 1]
        example[name] = np.array([*ids, vocabulary.eos_id], np.int32)
    return example
