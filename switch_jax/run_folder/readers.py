"""Reads the files of a run's folder.

A training may be writing the files or may have been killed, and they may have been damaged since.
What cannot be read is left out, and one line says so; the rest is read.
"""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from switch_jax.config import Config
from switch_jax.run_folder.layout import RunFolder
from switch_jax.run_folder.records import parse_object
from switch_jax.run_folder.validation import Check, is_record, wrong_field
from switch_jax.storage import explain_state_errors, read_appended, read_bytes, stale_holder
from switch_jax.utils.errors import UserError, is_transient, storage_error


class FileContent(NamedTuple):
    """The content of a file, or an empty value; `left_out` is a line on what could not be read.

    `error` is set if the storage failed: the file may be whole.
    """

    value: Any
    left_out: str | None = None
    error: OSError | None = None


def nothing_read(message: str, files: Iterable[FileContent]) -> UserError:
    """Makes the error for files that could not be read: a TransientError if that may pass."""
    errors = [file.error for file in files if file.error is not None]
    passing = next(filter(is_transient, errors), None)
    return UserError(message) if passing is None else storage_error(message, passing)


def read_object(path: epath.Path, checks: Mapping[str, Check] | None = None) -> FileContent:
    """Reads the object in a JSON file, and leaves it out if a field does not pass its check."""
    found = _read_bytes(path)
    if found.value is None:
        return found._replace(value={})
    content = parse_object(found.value)
    wrong = wrong_field(content, checks or {})
    if wrong is not None:
        return FileContent({}, f"{path} is left out: its field {wrong} is of another type")
    return FileContent(content, None if content else f"{path} is left out: it is damaged")


def read_records(path: epath.Path) -> FileContent:
    """Reads the records of a file of JSON lines, in their order."""
    found = _read_bytes(path, read_appended)
    return found._replace(value=[]) if found.value is None else parse_records(path, found.value)


def parse_records(path: epath.Path, data: bytes) -> FileContent:
    """Parses the records in the content `data` of the file at a path."""
    lines = [line for line in enumerate(data.split(b"\n"), start=1) if line[1].strip()]
    parsed = [(number, parse_object(line)) for number, line in lines]
    records = [record for _, record in parsed if is_record(record)]
    invalid = [number for number, record in parsed if not is_record(record)]
    if not invalid:
        return FileContent(records)
    count = f"{len(invalid)} of {len(records) + len(invalid)} records"
    return FileContent(records, f"{path}: {count} left out (the first is line {invalid[0]})")


def read_run_config(folder: RunFolder) -> Config | None:
    """Reads a run's config from `config.json`; None if it is absent, or that of Hugging Face.

    Raises UserError if it is damaged or of another version, TransientError if it cannot be read: it
    may be whole.
    """
    file = folder.config_json
    absent = contextlib.suppress(FileNotFoundError, NotADirectoryError)
    with explain_state_errors(file), absent:
        settings = parse_object(read_bytes(file))
        if settings and "run" not in settings:
            return None
        try:
            return Config.from_settings(settings)
        except (KeyError, TypeError, UserError) as error:
            what = f"it has no {error}" if isinstance(error, KeyError) else error
            raise UserError(
                f"{file} is damaged, or was written by another version of switch_jax ({what}); "
                "a run goes on once it is removed, and its settings are not compared then"
            ) from error
    return None


def read_run_facts(folder: RunFolder) -> tuple[dict[str, Any], str | None]:
    """Reads the facts in a run's `run.json`, and returns them, or none and the reason.

    Raises TransientError if the file cannot be read: it may be whole, and must stay as it is.
    """
    file, found = folder.description, read_object(folder.description)
    with explain_state_errors(file):
        if found.error is not None:
            raise found.error
    if found.value:
        return found.value, None
    return {}, f"{file} is {'damaged' if found.left_out else 'not there'}"


def read_commit_time(checkpoint: epath.Path) -> int | None:
    """Reads when a checkpoint was saved, in nanoseconds since the epoch; None if unknown."""
    found = read_object(checkpoint / "_CHECKPOINT_METADATA").value.get("commit_timestamp_nsecs")
    return found if isinstance(found, int) else None


def stale_lock_holder(folder: RunFolder) -> str | None:
    """Returns the process of this host that trained here last, "process 7 on HOST", if it ended."""
    data = _read_bytes(folder.lock).value
    return stale_holder(folder.lock, data) if data else None


def _read_bytes(path: epath.Path, read: Callable[[epath.Path], bytes] = read_bytes) -> FileContent:
    """Reads the bytes of a file; the value is None if it is absent or cannot be read."""
    try:
        if Path(path).is_fifo():
            what = "it is a pipe, of which a read may never end"
            return FileContent(None, f"{path} is left out: {what}")
        return FileContent(read(path))
    except (FileNotFoundError, NotADirectoryError):
        return FileContent(None)
    except OSError as error:
        what = f"it cannot be read ({error.strerror or error})"
        return FileContent(None, f"{path} is left out: {what}", error)
