"""What the JSON files of a run's folder hold, field by field; docs/run_folder.md explains each.

A field is `required` or `optional` where readers use it: a record with a wrong one is left out. It
is `unchecked` where it is written for people and other programs alone.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from switch_jax import schema
from switch_jax.schema import (
    Check,
    Object,
    SchemaError,
    any_value,
    integer,
    list_of,
    nullable,
    number,
    number_between,
    string,
)

Record = dict[str, Any]


class RecordKind(enum.StrEnum):
    """The field `kind` of a record: the first four in metrics.jsonl, the others below eval."""

    TRAIN = "train"
    EVAL = "eval"
    SKIPPED = "skipped"  # a bad step, which changed nothing
    ROLLBACK = "rollback"  # a return to a checkpoint after many bad steps
    TEACHER_FORCED = "teacher_forced"
    GENERATED = "generated"
    EXPERT_TOKENS = "expert_tokens"


class RunPhase(enum.StrEnum):
    """The field `state` of status.json."""

    STARTING = "starting"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"


# What a run spends its wall time on, see `metrics.Goodput`.
TimeCategory = Literal["step", "data", "checkpoint", "eval", "compile", "idle"]
TIME_CATEGORIES: tuple[TimeCategory, ...] = get_args(TimeCategory)

MAX_WAITING = 0.1  # share of the training time that may go into waiting for data
MAX_TIMES_PLAN = 1.5  # how many times as long as the file of --plan says a step may take

STACKS = ("encoder", "decoder")
# What is recorded of a router, of the fields of `moe.statistics.RouterStatistics`.
ROUTER_STATISTICS: Mapping[str, Check] = {
    "load": list_of(number),
    "dropped": number,
    "entropy": number,
}
# And where a token may have several experts.
OPTIONAL_ROUTER_STATISTICS: Mapping[str, Check] = {"several_experts": number}
_SECONDS = number_between(0, 1e11)
_RATIO = number_between(0, 1e15)


def training_seconds(spent: Mapping[str, float]) -> float:
    """Seconds without evaluation, checkpoints and compilation, of seconds by category."""
    return spent["step"] + spent["data"] + spent["idle"]


def _check_router_shapes(router: Mapping[str, Any]) -> None:
    """A stack has N routers, of E experts each: load is [N, E], and the other fields are [N]."""
    layers, experts = len(router["layers"]), {len(row) for row in router["load"]}
    optional = [name for name in OPTIONAL_ROUTER_STATISTICS if name in router]
    fields = [*ROUTER_STATISTICS, *optional, "sublayers"]
    sizes = [len(router.get(field, router["layers"])) for field in fields]
    if set(sizes) != {layers} or len(experts) > 1 or 0 in experts:
        raise SchemaError(
            f"has {layers} layers, but {_listed(fields)} of {_listed(sizes)}, and rows of "
            f"load of {', '.join(map(str, sorted(experts)))} experts"
        )


def _listed(items: Sequence[object]) -> str:
    return f"{', '.join(map(str, items[:-1]))} and {items[-1]}"


def _check_not_empty(value: Mapping[str, Any]) -> None:
    if not value:
        raise SchemaError("is empty")


def _numbers(*names: str) -> dict[str, Check]:
    return dict.fromkeys(names, number)


_ROUTER = Object(
    required={
        "layers": list_of(integer),
        **{name: list_of(check) for name, check in ROUTER_STATISTICS.items()},
    },
    optional={
        "sublayers": list_of(string),
        **{name: list_of(check) for name, check in OPTIONAL_ROUTER_STATISTICS.items()},
    },
    unchecked={"max_over_mean": list_of(number), "dead_experts": list_of(integer)},
    consistency=_check_router_shapes,
)
_NORMS = Object(others=number)

COMMON: Mapping[str, Check] = {"kind": string, "step": integer}
_TRAINING_TIME: Mapping[str, Check] = {"seconds": nullable(_SECONDS)}
_TRAIN = Object(
    required=COMMON,
    optional={
        **_TRAINING_TIME,
        **_numbers("loss", "cross_entropy", "accuracy", "neg_log_perplexity"),
        **_numbers("gradient_norm", "learning_rate"),
        **_numbers("tokens_per_second", "tokens_per_second_per_chip", "goodput", "times_plan"),
        "skipped_steps": integer,
        "spent": Object(optional=dict.fromkeys(TIME_CATEGORIES, _SECONDS)),
        "router": Object(optional=dict.fromkeys(STACKS, _ROUTER), nullable=True),
    },
    unchecked={
        **_numbers(
            "soft_cross_entropy", "z_loss", "load_balance_loss", "router_z_loss", "parameter_norm"
        ),
        "model_flops_utilisation": number,
        "batches": integer,
        "repeated_requests": integer,
        "batch_hashes": string,
        "norms": Object(unchecked=dict.fromkeys(("gradient", "parameter", "update"), _NORMS)),
        "memory_gib": Object(
            unchecked=_numbers("host", "host_peak", "device_peak", "device_limit")
        ),
    },
)
# Measured on the target tokens that are not EOS or a sentinel.
_CONTENT = _numbers(
    *(f"content_{name}" for name in ("neg_log_perplexity", "cross_entropy", "accuracy", "tokens"))
)
_EVAL = Object(
    required={**COMMON, "neg_log_perplexity": number},
    optional={
        **_TRAINING_TIME,
        **_numbers("accuracy"),
        "task": string,
        **_CONTENT,
        "generated": Object(others=number),
        "majority_baseline": Object(others=number),
    },
    unchecked=_numbers("cross_entropy", "tokens", "dropped"),
)
_SKIPPED = Object(
    required=COMMON,
    optional={"batch": integer},
    unchecked={
        **_TRAINING_TIME,
        **_numbers("loss", "loss_limit", "gradient_norm", "gradient_norm_limit"),
    },
)
_ROLLBACK = Object(
    required=COMMON,
    optional={"back_to": integer},  # absent in records of earlier versions
    unchecked={**_TRAINING_TIME, "bad_steps": integer},
)

METRICS: Mapping[str, Object] = {
    RecordKind.TRAIN: _TRAIN,
    RecordKind.EVAL: _EVAL,
    RecordKind.SKIPPED: _SKIPPED,
    RecordKind.ROLLBACK: _ROLLBACK,
}

_SCORED: Mapping[str, Check] = {
    **COMMON,
    "task": string,
    "split": string,
    "max_examples": nullable(integer),
}
_SETTINGS: Mapping[str, Check] = {**_TRAINING_TIME, "settings": string}

EVAL_METRICS: Mapping[str, Object] = {
    RecordKind.TEACHER_FORCED: Object(
        required={
            **_SCORED,
            "metrics": Object(
                required={"neg_log_perplexity": number},
                optional=_CONTENT,
                unchecked=_numbers("cross_entropy", "accuracy", "tokens", "dropped"),
            ),
        },
        unchecked=_SETTINGS,
    ),
    RecordKind.GENERATED: Object(
        required={
            **_SCORED,
            "decoding": string,
            "metrics": Object(others=number, consistency=_check_not_empty),
        },
        optional={"majority_baseline": Object(others=number)},
        unchecked={**_SETTINGS, "examples": integer},
    ),
}


def _check_lists(expert: Mapping[str, Any]) -> None:
    """A count or a ratio for each token."""
    for tokens, numbers in (("frequent", "frequent_counts"), ("typical", "typical_ratios")):
        if len(expert[tokens]) != len(expert[numbers]):
            raise SchemaError(
                f"has {len(expert[tokens])} tokens, and {numbers} {len(expert[numbers])}", tokens
            )


EXPERT_TOKENS: Mapping[str, Object] = {
    RecordKind.EXPERT_TOKENS: Object(
        required={
            **_SCORED,
            "stack": schema.enum(*STACKS),
            "layer": integer,
            "expert": integer,
            "tokens": integer,
            "share": number_between(0, 1),
            "frequent": list_of(string),
            "frequent_counts": list_of(integer),
            "typical": list_of(string),
            "typical_ratios": list_of(_RATIO),
        },
        optional={"sublayer": string},
        unchecked=_SETTINGS,
        consistency=_check_lists,
    )
}

RUN_JSON = Object(
    optional={
        "name": string,
        "parameters": integer,
        "num_experts": integer,
        "sparse_layers": Object(optional=dict.fromkeys(STACKS, list_of(integer))),
        "encoder_router_type": string,
        "train_steps": integer,
        "seed": integer,
        "vocabulary": Object(others=string),
        "initial_checkpoint": nullable(string),
        "teacher_checkpoint": nullable(string),
    },
    unchecked={
        "flops_per_token": number,
        "mesh": Object(unchecked=dict.fromkeys(("data", "expert", "model"), integer)),
        "device": string,
        "batch_tokens": integer,
    },
    others=any_value,
)

STATUS_JSON = Object(
    optional={
        "state": schema.enum(*RunPhase),
        "message": string,
        "time": _SECONDS,
        "started": _SECONDS,
    },
    unchecked={"processes": integer},
)

# Of Orbax's file in a checkpoint's folder.
CHECKPOINT_METADATA = Object(required={"commit_timestamp_nsecs": number_between(0, 1e20)})
