"""Reads the files of a run's folder.

A training may be writing them, may have been killed, and they may have been damaged since. What
cannot be read is left out, and one line says so; the rest is read.
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
from switch_jax.storage import explain_read_errors, read_appended, read_bytes, stale_holder
from switch_jax.utils.errors import TransientError, UserError, is_transient, storage_error


class FileContent(NamedTuple):
    """What was read of a file, or an empty value; `left_out`: a line on what cannot be read.

    `error` is that of the storage, of a file that may be whole and cannot be read.
    """

    value: Any
    left_out: str | None = None
    error: OSError | None = None


def nothing_read(message: str, files: Iterable[FileContent]) -> UserError:
    """The error that none of these files was read: a TransientError if the storage failed."""
    errors = [file.error for file in files if file.error is not None]
    passing = next(filter(is_transient, errors), None)
    return UserError(message) if passing is None else storage_error(message, passing)


def read_object(path: epath.Path, checks: Mapping[str, Check] | None = None) -> FileContent:
    """The object in a JSON file; it is left out where a field does not pass its check."""
    found = _read_bytes(path)
    if found.value is None:
        return found._replace(value={})
    content = parse_object(found.value)
    wrong = wrong_field(content, checks or {})
    if wrong is not None:
        return FileContent({}, f"{path} is left out: its field {wrong} is of another type")
    return FileContent(content, None if content else f"{path} is left out: it is damaged")


def read_records(path: epath.Path) -> FileContent:
    """The records of a file of JSON lines, in their order."""
    found = _read_bytes(path, read_appended)
    return found._replace(value=[]) if found.value is None else parse_records(path, found.value)


def parse_records(path: epath.Path, data: bytes) -> FileContent:
    """The records in the content of the file at a path."""
    lines = [line for line in enumerate(data.split(b"\n"), start=1) if line[1].strip()]
    parsed = [(number, parse_object(line)) for number, line in lines]
    records = [record for _, record in parsed if is_record(record)]
    invalid = [number for number, record in parsed if not is_record(record)]
    if not invalid:
        return FileContent(records)
    count = f"{len(invalid)} of {len(records) + len(invalid)} records"
    return FileContent(records, f"{path}: {count} left out (the first is line {invalid[0]})")


def read_run_config(folder: RunFolder) -> Config | None:
    """The config of a run, by its `config.json`; None where there is none, or a Hugging Face one.

    UserError where it is damaged or of another version; TransientError where the storage failed.
    """
    file = folder.config_json
    absent = contextlib.suppress(FileNotFoundError, NotADirectoryError)
    with explain_read_errors(file), absent:
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
    """The facts in a run's `run.json`; and, where there are none, why.

    Raises TransientError where the file cannot be read: it may be whole, and must stay as it is.
    """
    file = folder.description
    try:
        facts = parse_object(read_bytes(file))
    except (FileNotFoundError, NotADirectoryError):
        return {}, f"{file} is not there"
    except OSError as error:
        raise TransientError(
            f"{file} cannot be read: {error.strerror or error}; this may pass: start again"
        ) from error
    return facts, None if facts else f"{file} is damaged"


def read_commit_time(checkpoint: epath.Path) -> int | None:
    """When a checkpoint was saved, in nanoseconds since the epoch; None where it does not say."""
    found = read_object(checkpoint / "_CHECKPOINT_METADATA").value.get("commit_timestamp_nsecs")
    return found if isinstance(found, int) else None


def stale_lock_holder(folder: RunFolder) -> str | None:
    """The process of this host that trained here last, if it is gone, as "process 7 on HOST"."""
    data = _read_bytes(folder.lock).value
    return stale_holder(folder.lock, data) if data else None


def _read_bytes(path: epath.Path, read: Callable[[epath.Path], bytes] = read_bytes) -> FileContent:
    """The bytes of a file; None where it is not there, or cannot be read."""
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
