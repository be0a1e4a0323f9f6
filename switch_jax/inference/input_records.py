"""What is to be predicted or scored: records with text under 'inputs' and, to score, 'targets'."""

import gzip
import sys
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from google.protobuf.message import DecodeError

from switch_jax.data.batch import Example
from switch_jax.data.tensorflow_setup import seqio, tf
from switch_jax.errors import UserError, storage_error
from switch_jax.schema import SchemaError, parse_json

Record = dict[str, str]
STANDARD_INPUT = "-"
_FRAME = 16  # bytes of a TFRecord around its content: the length, and two checksums


def read_records(path: str, stdin: BinaryIO | None = None) -> Iterator[Record]:
    """The records of a file, one by one; what is no record ends it, and never is passed over.

    Args:
      path: FILE.jsonl of JSON objects; FILE.tfrecord, or FILE.tfrecord.gz, of tf.train.Examples
        with bytes features; any other file is text in UTF-8, an input a line; '-' is standard
        input, JSON objects or text.
      stdin: in place of standard input.

    Raises:
      UserError: the file cannot be read, or a record is damaged or has no text as 'inputs'; names
        the file and the record's number.
    """
    if path == STANDARD_INPUT:
        yield from _from_lines(stdin or sys.stdin.buffer, "standard input", json_lines=None)
        return
    try:
        if tf.io.gfile.isdir(path):
            raise UserError(f"{path} is a folder: give one of its files")
        if ".tfrecord" in Path(path).name:
            yield from _from_tfrecord(path)
        else:
            with tf.io.gfile.GFile(path, "rb") as lines:
                yield from _from_lines(lines, path, json_lines=path.endswith((".jsonl", ".json")))
    except tf.errors.OpError as error:
        reason = error.message.split(";")[-1]
        raise storage_error(f"{path} cannot be read: {reason}", error) from error


def _from_lines(lines: Iterable[bytes], name: str, json_lines: bool | None) -> Iterator[Record]:
    """Without a word of what the lines are, the first one's look decides."""
    for number, line in enumerate(lines, start=1):
        place, line = f"{name}, line {number}", line.removesuffix(b"\n").removesuffix(b"\r")
        if json_lines is None:
            json_lines = line.startswith(b"{")
        if json_lines and not line.strip():
            continue
        try:
            yield _checked(parse_json(line), place) if json_lines else {"inputs": line.decode()}
        except UnicodeDecodeError as error:
            raise UserError(f"{place} is no text in UTF-8: {error}") from error
        except SchemaError as error:
            raise UserError(f"{place} is no JSON: {error}") from error


def _from_tfrecord(path: str) -> Iterator[Record]:
    zipped = path.endswith(".gz")
    compression = "GZIP" if zipped else ""
    records = tf.data.TFRecordDataset(path, compression_type=compression).as_numpy_iterator()
    number = size = 0
    try:
        for number, record in enumerate(records, start=1):
            size += _FRAME + len(record)
            features = tf.train.Example.FromString(record).features.feature
            values = {name: feature.bytes_list.value for name, feature in features.items()}
            texts = {name: texts[0].decode() for name, texts in values.items() if texts}
            yield _checked(texts, f"{path}, record {number}")
    except (tf.errors.OpError, UnicodeDecodeError, DecodeError) as error:
        message = f"{path}, record {number + 1} cannot be read: {error}"
        raise storage_error(message, error) from error
    # TensorFlow takes a file that ends within the head of a record for one that ends before it.
    if size != (_unzipped_size(path) if zipped else tf.io.gfile.stat(path).length):
        raise UserError(f"{path}, record {number + 1} cannot be read: the file ends within it")


def _unzipped_size(path: str) -> int:
    """Bytes of a file once it is unzipped; -1 for one that has been cut."""
    size = 0
    try:
        with tf.io.gfile.GFile(path, "rb") as file, gzip.open(file) as unzipped:
            while block := unzipped.read(2**20):
                size += len(block)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return -1
    return size


def _checked(record: object, place: str) -> Record:
    if not isinstance(record, dict) or not isinstance(record.get("inputs"), str):
        raise UserError(f'{place} has no text as \'inputs\': write {{"inputs": "..."}}')
    texts = {name: text for name, text in record.items() if isinstance(text, str)}
    for name, text in texts.items():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{place} has {name!r} with {text[error.start]!r}, half of a character, at "
                f"{error.start}: write it in UTF-8, or whole as two \\u"
            ) from error
    return texts


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
