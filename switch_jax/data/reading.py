"""Reads the examples of a task; an error names the file and how far it could be read."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from switch_jax.config import DataConfig
from switch_jax.data import seqio_internals
from switch_jax.data.preprocessing import tokenize_index
from switch_jax.data.sources import SourceFiles, source_files, source_of
from switch_jax.errors import UserError, is_transient, storage_error
from switch_jax.tensorflow_setup import seqio, tf

_TENSORFLOW_OPERATIONS = re.compile(
    r"\{\{function_node [^}]*\}\}|Error in user-defined function passed to .* with iterator: \S+: "
)
_MEANINGS = {
    "Invalid formatting on input": "not UTF-8",
    "Could not parse example input": "a record that is no tf.Example",
}
# The second one is raised for a message that quotes bytes of the data.
READ_ERRORS = (tf.errors.OpError, UnicodeDecodeError)
_Parsing = Callable[[tf.data.Dataset], tf.data.Dataset]


def read_examples(
    dataset: tf.data.Dataset,
    task: seqio.Task,
    split: str,
    use_cached: bool,
    current_files: Callable[[], Sequence[str]] | None = None,
) -> Iterator[Any]:
    """The elements of a data set as NumPy arrays.

    Args:
      dataset: made from the source or cache of a task.
      task, split, use_cached: what it was made from.
      current_files: returns the files that are being read, in which damage is looked for after an
        error; None stands for all files.

    Raises:
      UserError: the source cannot be read, or a preprocessing step fails. Where a file is damaged,
        the message has its path and the number of examples before the damage.
      TransientError: the storage failed.
    """
    iterator = dataset.as_numpy_iterator()
    while True:
        try:
            element = next(iterator)
        except StopIteration:
            return
        except READ_ERRORS as error:
            found = source_files(source_of(task, split, use_cached), split)
            files = current_files() if current_files else None
            reason = _reason(error, found, _parsing(task, use_cached), files)
            raise storage_error(f"{task.name}, split {split!r}: {reason}", error) from error
        yield element  # outside the `try`, which would also catch errors of the caller


def _reason(
    error: tf.errors.OpError | UnicodeDecodeError,
    found: SourceFiles,
    parsed: _Parsing,
    files: Sequence[str] | None,
) -> str:
    if is_transient(error):  # the files may be readable again, so no damage would be found
        return f"cannot be read: {tensorflow_message(error)}"
    paths = [file.path for file in found.files if file.path] if files is None else files
    damage = _find_damage(paths, found, parsed)
    return damage or f"a step of the task fails: {tensorflow_message(error)}"


def _parsing(task: seqio.Task, use_cached: bool) -> _Parsing:
    """The steps before tokenization, as those that parse lines: they may fail on an example."""
    is_parsed = use_cached and task.supports_caching
    steps = [] if is_parsed else task.preprocessors[: tokenize_index(task) or 0]
    return lambda examples: seqio_internals.preprocess(task, examples, steps)


def _find_damage(files: Sequence[str], found: SourceFiles, parsed: _Parsing) -> str | None:
    """Reads the files one by one and describes the first damage; None if there is none.

    Args:
      files: paths.
      found: how they are read.
      parsed: the first steps of the task, which may fail on what can be read.
    """
    for file in files:
        counts, stage = [0, 0], 0  # examples read, and those after the first steps
        try:
            for path in found.readable(file):
                examples = found.read(tf.constant(path))
                for stage, dataset in enumerate((examples, parsed(examples))):
                    for _ in dataset.as_numpy_iterator():
                        counts[stage] += 1
        except OSError as error:
            return f"{file}: {error.strerror}"
        except READ_ERRORS as error:
            return f"{file}, after {counts[stage]} examples: {tensorflow_message(error)}"
    return None


def tensorflow_message(error: tf.errors.OpError | UnicodeDecodeError) -> str:
    """TensorFlow's message without the names of its own operations, and without data."""
    if isinstance(error, UnicodeDecodeError):
        message = error.object.decode(errors="replace")
    else:
        message = error.message
    message = _TENSORFLOW_OPERATIONS.sub("", message).strip().split("\n")[0]
    message = message.split("[Op:")[0].strip().removeprefix("ValueError: ")
    for beginning, meaning in _MEANINGS.items():
        if message.startswith(beginning):
            return meaning
    return message


def no_examples(name: str, config: DataConfig) -> UserError:
    """The error that a task or mixture has no example to read; its message begins with `name`."""
    return UserError(
        f"{name} gives no example of its split {config.split!r} at task_feature_lengths "
        f"{dict(config.task_feature_lengths)}: the split is empty, or the task's preprocessors "
        "drop every example at these lengths (write smaller ones) or leave its inputs without a "
        "token"
    )
