"""Kinds of records (lines of a metrics.jsonl) and states in a run's folder: docs/run_folder.md."""

import enum
from collections.abc import Mapping
from typing import Any, Literal, get_args

from switch_jax.utils.json_text import parse_json

Record = dict[str, Any]


class RecordKind(enum.StrEnum):
    """The field `kind` of a record: the first four in metrics.jsonl, the others below eval."""

    TRAIN = "train"
    EVAL = "eval"
    SKIPPED = "skipped"  # a bad step, which changed nothing
    ROLLBACK = "rollback"  # a return to a checkpoint after many bad steps
    TEACHER_FORCED = "teacher_forced"
    GENERATED = "generated"


class RunPhase(enum.StrEnum):
    """The field `state` of status.json."""

    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


# What a run spends its wall time on, see `monitoring.Goodput`.
TimeCategory = Literal["step", "data", "checkpoint", "eval", "compile", "idle"]
TIME_CATEGORIES: tuple[TimeCategory, ...] = get_args(TimeCategory)

MAX_WAITING = 0.1  # share of the training time that may go into waiting for data


def training_seconds(spent: Mapping[str, float]) -> float:
    """Seconds without evaluation, checkpoints and compilation, of seconds by category."""
    return spent.get("step", 0.0) + spent.get("data", 0.0) + spent.get("idle", 0.0)


def parse_object(data: bytes) -> dict[str, Any]:
    """The object of a JSON text; empty where it is damaged or no object."""
    try:
        parsed = parse_json(data)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}
