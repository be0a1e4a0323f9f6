"""What a run's folder, MODEL_DIR, says: each file by a schema.

A training may be writing it, may have been killed, and its files may have been changed or damaged
since. What does not fit is left out, and one line says how much and why; the rest is read.
"""

from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

from etils import epath

from switch_jax.schema import (
    Check,
    Misfit,
    Object,
    between,
    clean,
    list_of,
    number,
    one_of,
    or_null,
    parsed_json,
    plain,
    text,
    whole,
)

Record = dict[str, Any]

METRICS, SCORES = "metrics.jsonl", "eval/metrics.jsonl"
# What a run spends its wall time on, see `metrics.Goodput`.
SpentKind = Literal["step", "data", "checkpoint", "eval", "compile", "idle"]
SPENT_KINDS: tuple[SpentKind, ...] = get_args(SpentKind)
_STACKS = ("encoder", "decoder")
_SECONDS = between(0, 1e11)
_STATES = ("starting", "running", "finished", "stopped", "failed")


class Read(NamedTuple):
    """What was read of a file.

    Attributes:
      value: what fits; empty where the file is not there.
      left_out: one line on what does not; None where everything fits.
    """

    value: Any
    left_out: str | None = None


def _router(name: str, value: Any) -> Record:
    """A stack's routers: N layers of E experts each, their load [N, E], dropped and entropy [N]."""
    router = _ROUTER(name, value)
    layers, experts = len(router["layers"]), {len(row) for row in router["load"]}
    sizes = [len(router["load"]), len(router["dropped"]), len(router["entropy"])]
    if sizes != [layers] * 3 or len(experts) > 1 or 0 in experts:
        raise Misfit(
            f"{name} has {layers} layers, but load, dropped and entropy of {sizes[0]}, {sizes[1]} "
            f"and {sizes[2]}, and rows of load of {', '.join(map(str, sorted(experts)))} experts"
        )
    return router


_ROUTER = Object(
    required={
        "layers": list_of(whole),
        "load": list_of(list_of(number)),
        "dropped": list_of(number),
        "entropy": list_of(number),
    }
)
_TRAIN: Mapping[str, Check] = {
    **dict.fromkeys(
        (
            "loss", "cross_entropy", "neg_log_perplexity", "accuracy", "learning_rate",
            "gradient_norm", "tokens_per_second", "tokens_per_second_per_chip", "goodput",
        ),
        number,
    ),
    "skipped_steps": whole,
    "spent": Object(optional=dict.fromkeys(SPENT_KINDS, _SECONDS)),
    "router": or_null(Object(optional=dict.fromkeys(_STACKS, _router))),
}  # fmt: skip
_COMMON: Mapping[str, Check] = {"kind": text, "step": whole}
# Of metrics.jsonl and of eval/metrics.jsonl by kind; records of other kinds are not read.
_RECORDS = {
    "train": Object(_COMMON, {"seconds": or_null(_SECONDS), **_TRAIN}),
    "eval": Object(
        {**_COMMON, "neg_log_perplexity": number},
        {"seconds": or_null(_SECONDS), "task": text, "accuracy": number},
    ),
    "rollback": Object(_COMMON),
}
_SCORED = {**_COMMON, "task": text, "split": text, "max_examples": or_null(whole)}


def _metrics(name: str, value: Any) -> Record:
    """The values of a task's metrics by name, one at least."""
    found = Object(others=number)(name, value)
    if not found:
        raise Misfit(f"{name} is empty")
    return found


_SCORES = {
    "generated": Object({**_SCORED, "decoding": text, "metrics": _metrics}),
    "teacher_forced": Object({**_SCORED, "metrics": Object({"neg_log_perplexity": number})}),
}
_FACTS = Object(
    optional={
        "name": text,
        "num_experts": whole,
        "parameters": whole,
        "train_steps": whole,
        "initial_checkpoint": or_null(text),
        "vocabulary": Object(others=text),
    },
    others=plain,
)
_LIFE = Object(
    optional={"state": one_of(*_STATES), "message": text, "time": _SECONDS, "started": _SECONDS}
)
_CHECKPOINT = Object(required={"commit_timestamp_nsecs": between(0, 1e20)})


def read_metrics(folder: epath.Path) -> Read:
    """The records of `metrics.jsonl`, of kind 'train', 'eval' and 'rollback', in their order."""
    return _read_records(folder / METRICS, _RECORDS)


def parsed_record(line: bytes) -> Record:
    """A line of `metrics.jsonl` with all its fields, of any kind.

    Raises:
      Misfit: readers leave it out; of a kind that they do not read: it has no kind and step.
    """
    parsed = parsed_json(line)
    kind = Object({"kind": text})("", parsed)["kind"]
    _RECORDS.get(kind, Object(_COMMON))("", parsed)
    return parsed


def read_scores(folder: epath.Path) -> Read:
    """The records of `eval/metrics.jsonl`, of kind 'generated' and 'teacher_forced'."""
    return _read_records(folder / SCORES, _SCORES)


def read_facts(folder: epath.Path) -> Read:
    """The object of `run.json`."""
    return _read_object(folder / "run.json", _FACTS)


def read_life(folder: epath.Path) -> Read:
    """The object of `status.json`: state, message, and the times when it was written and begun."""
    return _read_object(folder / "status.json", _LIFE)


def read_config(folder: epath.Path) -> Read:
    """The text of `config.gin`; what is not UTF-8 in it is shown as U+FFFD."""
    path = folder / "config.gin"
    data, reason = _read_bytes(path)
    if data is None:
        return Read("", reason)
    found = clean(data.decode(errors="replace"), kept="\n\t")
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return Read(found, f"{path} is not UTF-8 at byte {error.start}: shown as far as it is")
    return Read(found)


def saved_at(checkpoint: epath.Path) -> float | None:
    """When a checkpoint was saved, in seconds since the epoch; None where it does not say."""
    found = _read_object(checkpoint / "_CHECKPOINT_METADATA", _CHECKPOINT).value
    return found["commit_timestamp_nsecs"] / 1e9 if found else None


def _read_bytes(path: epath.Path) -> tuple[bytes | None, str | None]:
    """What a file holds; None and no reason where it is not there."""
    try:
        return path.read_bytes(), None
    except (FileNotFoundError, NotADirectoryError):
        return None, None
    except OSError as error:
        return None, f"{path} is left out: it cannot be read ({error.strerror or error})"


def _read_object(path: epath.Path, schema: Object) -> Read:
    data, reason = _read_bytes(path)
    if data is None:
        return Read({}, reason)
    try:
        parsed = parsed_json(data)
        found, misfits = schema.fitting("", parsed)
    except Misfit as misfit:
        return Read({}, f"{path} is left out: {misfit}")
    if not misfits:
        return Read(found)
    count = f"{len(misfits)} of {len(parsed)} fields"
    return Read(found, f"{path}: {count} left out ({misfits[0]})")


def _read_records(path: epath.Path, schemas: Mapping[str, Object]) -> Read:
    data, reason = _read_bytes(path)
    if data is None:
        return Read([], reason)
    *lines, rest = data.split(b"\n")
    found: dict[int, Record] = {}
    misfits: dict[int, str] = {}
    total = 0
    for line_number, line in enumerate([*lines, rest], start=1):
        if not line.strip():
            continue
        total += 1
        try:
            parsed = parsed_json(line)
        except Misfit as misfit:
            half = line_number > len(lines)
            misfits[line_number] = "it is half-written" if half else str(misfit)
            continue
        try:
            record = _record(parsed, schemas)
        except Misfit as misfit:
            misfits[line_number] = str(misfit)
            continue
        if record is not None:
            found[line_number] = record
    for line_number, reason in _of_another_shape(found):
        misfits[line_number] = reason
        del found[line_number]
    if not misfits:
        return Read(list(found.values()))
    first = min(misfits)
    count = f"{len(misfits)} of {total} records"
    return Read(list(found.values()), f"{path}: {count} left out (line {first}: {misfits[first]})")


def _record(parsed: Any, schemas: Mapping[str, Object]) -> Record | None:
    """A record by the schema of its kind; None where that is unknown, as of a newer version."""
    kind = Object({"kind": text})("", parsed)["kind"]
    return schemas[kind]("", parsed) if kind in schemas else None


def _of_another_shape(records: Mapping[int, Record]) -> list[tuple[int, str]]:
    """The records whose routers have another shape than most: they cannot stand in one chart."""
    shapes = {n: _shape(r["router"]) for n, r in records.items() if r.get("router")}
    if len(set(shapes.values())) < 2:
        return []
    ((usual, _),) = Counter(shapes.values()).most_common(1)
    return [
        (n, f"router has layers and experts {_shown(shape)}, and most records {_shown(usual)}")
        for n, shape in shapes.items()
        if shape != usual
    ]


_Shape = tuple[tuple[str, tuple[int, ...], int], ...]


def _shape(routers: Record) -> _Shape:
    """Of each stack its name, the numbers of its sparse layers, and how many experts they have."""
    return tuple(
        (stack, tuple(router["layers"]), len(router["load"][0]) if router["load"] else 0)
        for stack, router in sorted(routers.items())
    )


def _shown(shape: _Shape) -> str:
    return "; ".join(f"{stack} {list(layers)} x {experts}" for stack, layers, experts in shape)
