"""Reads the files of a run's folder.

A training may be writing them, may have been killed, and they may have been damaged since. What
cannot be read is left out, and one line says so; the rest is read.
"""

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from switch_jax.config import Config
from switch_jax.run_folder.layout import RunFolder
from switch_jax.run_folder.records import parse_object
from switch_jax.run_folder.validation import Check, is_record, wrong_field
from switch_jax.storage import explain_read_errors, holder_gone, read_appended, read_bytes
from switch_jax.utils.errors import UserError


class FileContent(NamedTuple):
    """What was read of a file, or an empty value; `left_out`: a line on what cannot be read."""

    value: Any
    left_out: str | None = None


def read_object(path: epath.Path, checks: Mapping[str, Check] | None = None) -> FileContent:
    """The object in a JSON file; it is left out where a field does not pass its check."""
    data, problem = _read_bytes(path)
    if data is None:
        return FileContent({}, problem)
    content = parse_object(data)
    wrong = wrong_field(content, checks or {})
    if wrong is not None:
        return FileContent({}, f"{path} is left out: its field {wrong} is of another type")
    return FileContent(content, None if content else f"{path} is left out: it is damaged")


def read_records(path: epath.Path) -> FileContent:
    """The records of a file of JSON lines, in their order."""
    data, problem = _read_bytes(path, read_appended)
    return FileContent([], problem) if data is None else parse_records(path, data)


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


def config_of_run(folder: RunFolder) -> Config | None:
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


def read_commit_time(checkpoint: epath.Path) -> int | None:
    """When a checkpoint was saved, in nanoseconds since the epoch; None where it does not say."""
    found = read_object(checkpoint / "_CHECKPOINT_METADATA").value.get("commit_timestamp_nsecs")
    return found if isinstance(found, int) else None


def process_that_is_gone(folder: RunFolder) -> str | None:
    """The process of this host that trained here last, if it is gone, as "process 7 on HOST"."""
    data, _ = _read_bytes(folder.lock)
    return holder_gone(folder.lock, data) if data else None


def _read_bytes(
    path: epath.Path, read: Callable[[epath.Path], bytes] = read_bytes
) -> tuple[bytes | None, str | None]:
    """The content of a file, and why it cannot be read; both None where it is not there."""
    try:
        if Path(path).is_fifo():
            return None, f"{path} is left out: it is a pipe, of which a read may never end"
        return read(path), None
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, f"{path} is left out: it cannot be read ({error.strerror or error})"
