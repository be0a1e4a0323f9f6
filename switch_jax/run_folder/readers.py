"""Reads the files of a run's folder, each by its schema.

A training may be writing them, may have been killed, and they may have been changed or damaged
since. What does not fit the schema is left out, and one line says how much and why; the rest is
read.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from etils import epath

from switch_jax.run_folder import schemas
from switch_jax.run_folder.layout import RunFolder
from switch_jax.run_folder.schemas import Record
from switch_jax.schema import Object, SchemaError, parse_json, printable, string
from switch_jax.storage import holder_gone, read_appended, read_bytes

_KIND = Object({"kind": string})


class FileContent(NamedTuple):
    """What was read of a file.

    Attributes:
      value: what fits the schema; empty where the file is not there.
      left_out: one line on what does not fit; None where everything does.
    """

    value: Any
    left_out: str | None = None


class RecordLine(NamedTuple):
    """A line of JSON lines that is not blank.

    Attributes:
      number: of the line, from 1.
      record: all its fields; None where it is not valid.
      checked: those of its fields that readers use; None where it is not valid, or of a kind that
        is not known, as records of a newer version are.
      problem: why it is not valid; None where it is.
    """

    number: int
    record: Record | None = None
    checked: Record | None = None
    problem: str | None = None


def read_metrics(folder: RunFolder) -> FileContent:
    """The records of `metrics.jsonl` in their order, with the fields that readers use."""
    return _read_records(folder.metrics, schemas.METRICS)


def read_eval_metrics(folder: RunFolder) -> FileContent:
    """The records of `eval/metrics.jsonl`, likewise."""
    return _read_records(folder.evaluation.metrics, schemas.EVAL_METRICS)


def read_expert_tokens(folder: RunFolder) -> list[FileContent]:
    """The records of the newest file of each task and split in `eval/expert_tokens`."""
    try:
        files = folder.evaluation.newest_expert_tokens()
    except OSError as error:
        reason = f"it cannot be listed ({error.strerror or error})"
        return [FileContent([], f"{folder.evaluation.expert_tokens} is left out: {reason}")]
    return [_read_records(file, schemas.EXPERT_TOKENS) for file in files]


def record_lines(data: bytes) -> list[RecordLine]:
    """The lines of a file that a `MetricWriter` writes; records of all kinds have kind and step."""
    return list(_record_lines(data, schemas.METRICS, Object(schemas.COMMON)))


def read_run_json(folder: RunFolder) -> FileContent:
    """The object in `run.json`."""
    return _read_object(folder.description, schemas.RUN_JSON)


def read_status_json(folder: RunFolder) -> FileContent:
    """The object in `status.json`: state, message, and the times when it was written and begun."""
    return _read_object(folder.status, schemas.STATUS_JSON)


def read_config(folder: RunFolder) -> FileContent:
    """The text of `config.gin`; bytes that are not UTF-8 are shown as U+FFFD."""
    data, problem = _read_bytes(folder.config)
    if data is None:
        return FileContent("", problem)
    try:
        data.decode()
    except UnicodeDecodeError as error:
        problem = f"{folder.config} is not UTF-8 at byte {error.start}: shown as far as it is"
    return FileContent(printable(data.decode(errors="replace"), keep="\n\t"), problem)


def read_commit_time(checkpoint: epath.Path) -> float | None:
    """When a checkpoint was saved, in seconds since the epoch; None where it does not say."""
    found = _read_object(checkpoint / "_CHECKPOINT_METADATA", schemas.CHECKPOINT_METADATA).value
    return found["commit_timestamp_nsecs"] / 1e9 if found else None


def process_that_is_gone(folder: RunFolder) -> str | None:
    """The process of this host that trained here last and is gone, as "process 7 on HOST".

    None where one still has the lock, or it was on another host.
    """
    data, _ = _read_bytes(folder.lock)
    return holder_gone(folder.lock, data) if data else None


def _read_bytes(
    path: epath.Path, read: Callable[[epath.Path], bytes] = read_bytes
) -> tuple[bytes | None, str | None]:
    """The content of a file, and why it cannot be read; both None where it is not there."""
    if Path(path).is_fifo():
        return None, f"{path} is left out: it is a pipe, of which a read may never end"
    try:
        return read(path), None
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, f"{path} is left out: it cannot be read ({error.strerror or error})"


def _read_object(path: epath.Path, schema: Object) -> FileContent:
    data, problem = _read_bytes(path)
    if data is None:
        return FileContent({}, problem)
    try:
        parsed = parse_json(data)
        valid, errors = schema.valid_fields(parsed)
    except SchemaError as error:
        return FileContent({}, f"{path} is left out: {error}")
    if not errors:
        return FileContent(valid)
    count = f"{len(errors)} of {len(parsed)} fields"
    return FileContent(valid, f"{path}: {count} left out ({errors[0]})")


def _read_records(path: epath.Path, kinds: Mapping[str, Object]) -> FileContent:
    data, problem = _read_bytes(path, read_appended)
    if data is None:
        return FileContent([], problem)
    valid, problems, num_lines = {}, {}, 0
    for line in _record_lines(data, kinds, other_kinds=_KIND):
        num_lines += 1
        if line.checked is not None:
            valid[line.number] = line.checked
        elif line.problem is not None:
            problems[line.number] = line.problem
    for number, problem in _with_unusual_routers(valid):
        problems[number] = problem
        del valid[number]
    records = list(valid.values())
    if not problems:
        return FileContent(records)
    first = min(problems)
    count = f"{len(problems)} of {num_lines} records"
    return FileContent(records, f"{path}: {count} left out (line {first}: {problems[first]})")


def _record_lines(
    data: bytes, kinds: Mapping[str, Object], other_kinds: Object
) -> Iterator[RecordLine]:
    """The lines that are not blank, checked by the schema of their kind, or `other_kinds`."""
    *complete, rest = data.split(b"\n")
    for number, line in enumerate([*complete, rest], start=1):
        if not line.strip():
            continue
        half_written = number > len(complete)
        try:
            record = parse_json(line)
            half_written = False
            kind = _KIND.read(record)["kind"]
            checked = kinds.get(kind, other_kinds).read(record)
        except SchemaError as error:
            yield RecordLine(number, problem="it is half-written" if half_written else str(error))
        else:
            yield RecordLine(number, record, checked if kind in kinds else None)


def _with_unusual_routers(records: Mapping[int, Record]) -> list[tuple[int, str]]:
    """The records whose routers have another shape than most: they cannot stand in one chart."""
    shapes = {n: _router_shape(r["router"]) for n, r in records.items() if r.get("router")}
    if len(set(shapes.values())) < 2:
        return []
    ((usual, _),) = Counter(shapes.values()).most_common(1)
    return [
        (n, f"router has layers and experts {_shown(shape)}, and most records {_shown(usual)}")
        for n, shape in shapes.items()
        if shape != usual
    ]


_RouterShape = tuple[tuple[str, tuple[int, ...], int], ...]


def _router_shape(routers: Record) -> _RouterShape:
    """Of each stack its name, the numbers of its sparse layers, and how many experts they have."""
    return tuple(
        (stack, tuple(router["layers"]), len(router["load"][0]) if router["load"] else 0)
        for stack, router in sorted(routers.items())
    )


def _shown(shape: _RouterShape) -> str:
    return "; ".join(f"{stack} {list(layers)} x {experts}" for stack, layers, experts in shape)
