"""Reads the examples of a task; an error names the files."""

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from switch_jax.config import DataConfig
from switch_jax.config.stack import StackConfig
from switch_jax.data.reading.compression import CUT_OFF, first_cut_off
from switch_jax.data.reading.file_chunks import FileFormat, TextLines
from switch_jax.data.reading.sources import data_source, source_files
from switch_jax.utils.errors import UserError, storage_error
from switch_jax.utils.fields import short_repr
from switch_jax.utils.tensorflow_setup import seqio, tf

_TENSORFLOW_OPERATIONS = re.compile(
    r"\{\{function_node [^}]*\}\}|Error in user-defined function passed to .* with iterator: \S+: "
)
# Of Python code within a data set, as sources.py reads files: "OSError: [Errno 5] reason: 'file'".
_OS_ERROR = re.compile(r"\w+: \[Errno \d+\] (?P<reason>.*): '(?P<file>.*)'")
# Of `tasks.building_blocks.parse_json_lines`.
_BAD_LINE = re.compile(r"(?P<problem>.*), in the line (?P<line>(['\"]).*\3)")
_NO_EXAMPLE = "Could not parse example input"  # TensorFlow goes on with bytes of the record
# The second one is raised for a message that quotes bytes of the data.
READ_ERRORS = (tf.errors.OpError, UnicodeDecodeError)
_MAX_NAMED = 3  # files that a message names


def read_examples(
    dataset: tf.data.Dataset,
    task: seqio.Task,
    split: str,
    use_cached: bool,
    current_files: Callable[[], Sequence[str]] | None = None,
) -> Iterator[Any]:
    """The elements of a data set, made from a task's source or cache, as NumPy arrays.

    `current_files` returns the files that are being read; None stands for all files. Raises
    UserError where the source cannot be read, with the damaged file and place, or a preprocessing
    step fails, with the files that were being read; TransientError where the storage failed.
    """
    iterator = dataset.as_numpy_iterator()
    while True:
        try:
            element = next(iterator)
        except StopIteration:
            return
        except READ_ERRORS as error:
            reason = tensorflow_message(error)
            if found := _OS_ERROR.match(reason):
                reason = f"{found['file']}: {found['reason']}"
            else:
                source = source_files(data_source(task, split, use_cached), split)
                all_files = [file.path for file in source.files if file.path]
                files = current_files() if current_files else all_files
                reason = _located(reason, source.format, files)
            raise storage_error(f"{task.name}, split {split!r}: {reason}", error) from error
        yield element  # outside the `try`, which would also catch errors of the caller


def _located(reason: str, format: FileFormat | None, files: Sequence[str]) -> str:
    """Adds to the reason the number of the bad line, if there is one, or the names of the files.

    Where a compressed file was cut off, that is the reason.
    """
    if format is None and (file := first_cut_off(files)):
        return f"{file}: {CUT_OFF}"
    bad = _BAD_LINE.fullmatch(reason)
    if not bad:
        return reason + _while_reading(files)
    line = ast.literal_eval(bad["line"])
    reason = f"{bad['problem']}, in the line {short_repr(line)}"
    if isinstance(format, TextLines):
        for file in files:
            if number := _line_number(line.encode(), format.contents(file)):
                return f"{file}, line {number}: {reason}"
    return reason + _while_reading(files)


def _line_number(line: bytes, contents: Iterable[bytes]) -> int | None:
    """Number of the line, from 1, in a file given in blocks of whole lines; None if absent."""
    before = 0
    for content in contents:
        lines = content.replace(b"\r", b"").split(b"\n")  # as TensorFlow reads them
        if line in lines:
            return before + lines.index(line) + 1
        before += content.count(b"\n")
    return None


def _while_reading(files: Sequence[str]) -> str:
    """The end of a message, which names the files that were being read."""
    more = [f"{len(files) - _MAX_NAMED} more"] * (len(files) > _MAX_NAMED)
    return f"; while reading {', '.join([*files[:_MAX_NAMED], *more])}" if files else ""


def tensorflow_message(error: tf.errors.OpError | UnicodeDecodeError) -> str:
    """TensorFlow's message without the names of its own operations, and without data."""
    if isinstance(error, UnicodeDecodeError):
        message = error.object.decode(errors="replace")
    else:
        message = error.message
    message = _TENSORFLOW_OPERATIONS.sub("", message).strip().split("\n")[0]
    message = message.split("[Op:")[0].strip().removeprefix("ValueError: ")
    return "a record is no tf.Example" if message.startswith(_NO_EXAMPLE) else message


def has_tokens(example: Mapping[str, Any], stacks: Sequence[StackConfig]) -> bool:
    """Whether each stack that attends to no other has a token; without `stacks`, whether any has.

    Examples without are left out before packing: targets would have nothing to attend to, and a row
    of examples that are empty altogether would never be full. A stack of whose features an example
    has none does not count: `checks.check_examples` refuses that.
    """
    read = [stack.features for stack in stacks if stack.attends_to is None]
    for features in read or [("inputs", "targets")]:
        lengths = [len(example[name]) for name in features if name in example]
        if lengths and not any(lengths):
            return False
    return True


def no_examples(name: str, config: DataConfig) -> UserError:
    """The error that a task or mixture has no example to read; its message begins with `name`."""
    return UserError(
        f"{name} gives no example of its split {config.split!r} at TASK_FEATURE_LENGTHS = "
        f"{dict(config.task_feature_lengths)}: the split is empty, or the task's preprocessors "
        "drop every example at these lengths (write smaller ones) or leave its inputs without a "
        "token"
    )
