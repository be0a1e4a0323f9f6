"""Whether what is in a run's files has the types that readers rely on.

A file may have been damaged, or written by hand. A field that no reader uses may be anything.
"""

from collections.abc import Callable, Mapping
from typing import Any

from switch_jax.metrics import RECORDED_STATISTICS
from switch_jax.run_folder.records import Record, RecordKind

Check = Callable[[Any], bool]

_LARGEST = 10**300  # a larger integer may be no float
_MOST_STEPS = 2**53  # a float holds every integer up to here


def is_record(record: Record) -> bool:
    """Whether it has a kind, a step and what readers need of its kind, each of the right type."""
    needed = {"kind", "step", *_NEEDED.get(str(record.get("kind")), ())}
    return needed <= record.keys() and wrong_field(record, _RECORD) is None


def wrong_field(content: Mapping[str, Any], checks: Mapping[str, Check]) -> str | None:
    """The first field that is there and of another type; None: there is none."""
    found = (field for field, check in checks.items() if field in content)
    return next((field for field in found if not checks[field](content[field])), None)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MOST_STEPS


def _is_number(value: Any) -> bool:
    return type(value) is float or (type(value) is int and abs(value) < _LARGEST)


def _is_number_or_null(value: Any) -> bool:
    return value is None or _is_number(value)  # null stands for NaN and infinite numbers


def _has_only(check: Check) -> Check:
    """The check that a value is an object, and passes a check in each field."""
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _is_list(value: Any, length: int, check: Check) -> bool:
    return isinstance(value, list) and len(value) == length and all(map(check, value))


def _is_of_stack(statistics: Any) -> bool:
    """Whether they are those of a stack's N routers, each of E experts; N may be 0."""
    load = statistics.get("load") if isinstance(statistics, dict) else None
    if not isinstance(load, list) or not all(isinstance(row, list) and row for row in load):
        return False
    experts = len(load[0]) if load else 0

    def is_row(value: Any) -> bool:
        return _is_list(value, experts, _is_number_or_null)

    fields: dict[str, Check] = {"layers": _is_count, "sublayers": _is_text}
    for name, statistic in RECORDED_STATISTICS.items():
        if not statistic.optional or name in statistics:
            fields[name] = is_row if statistic.per_expert else _is_number_or_null
    return all(_is_list(statistics.get(name), len(load), fields[name]) for name in fields)


def _is_router(value: Any) -> bool:
    return value is None or _has_only(_is_of_stack)(value)


# What readers need of a record of a kind, beside its kind and its step.
_NEEDED: Mapping[str, tuple[str, ...]] = {
    RecordKind.EVAL: ("neg_log_perplexity",),
    RecordKind.ROLLBACK: ("back_to",),
}
# The numbers that readers use.
NUMBERS = (
    "seconds", "loss", "neg_log_perplexity", "content_neg_log_perplexity", "accuracy",
    "content_accuracy", "gradient_norm", "learning_rate", "tokens_per_second",
    "tokens_per_second_per_chip", "goodput",
)  # fmt: skip
_RECORD: Mapping[str, Check] = {
    "kind": _is_text,
    "step": _is_count,
    "task": _is_text,
    "batch": _is_count,
    "back_to": _is_count,
    **dict.fromkeys(NUMBERS, _is_number_or_null),
    "spent": _has_only(_is_number),
    "generated": _has_only(_is_number_or_null),
    "majority_baseline": _has_only(_is_number_or_null),
    "router": _is_router,
}
DESCRIPTION: Mapping[str, Check] = {
    "name": _is_text,
    "parameters": _is_count,
    "active_parameters": _is_count,
    "num_experts": _is_count,
    "train_steps": _is_count,
}
STATUS: Mapping[str, Check] = {
    "state": _is_text,
    "message": _is_text,
    "time": _is_number,
    "started": _is_number,
}
STARTS: Mapping[str, Check] = {"step": _is_count, "starts": _is_count}
