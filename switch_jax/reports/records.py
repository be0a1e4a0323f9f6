"""Finds the records of metrics.jsonl that count, if a run was resumed or went back."""

import dataclasses
from collections.abc import Collection, Iterable

from switch_jax.run_folder import Record, RecordKind

QUALITY = "neg_log_perplexity"
CONTENT_QUALITY = "content_neg_log_perplexity"  # without sentinels and EOS


@dataclasses.dataclass(frozen=True)
class Records:
    """The records that count, one of each kind and step, and what happened during the run."""

    train: list[Record]  # ascending by step
    evals: dict[str, list[Record]]  # by task, likewise
    skipped_steps: int  # bad batches, in lost attempts too; one skipped again counts once
    rollbacks: int  # returns to a checkpoint after many bad steps


def kept_records(records: Iterable[Record]) -> Records:
    """Sorts records, and drops those of lost attempts and all but the last of a step.

    A train record of an earlier step than the one before it shows that the run was resumed from a
    checkpoint, and a rollback names the step that it returned to. The records past that step are of
    an attempt that was lost.
    """
    train: dict[int, Record] = {}
    evals: dict[str, dict[int, Record]] = {}
    skipped, rollbacks, last_train_step = set(), 0, -1

    def drop_past(step: int) -> None:
        for series in (train, *evals.values()):
            for lost in [s for s in series if s > step]:
                del series[lost]

    def ascending(series: dict[int, Record]) -> list[Record]:
        return [series[step] for step in sorted(series)]

    for record in records:
        kind, step = record["kind"], int(record["step"])
        if kind == RecordKind.TRAIN:
            if step <= last_train_step:
                drop_past(step)
            last_train_step = step
            train[step] = record
        elif kind == RecordKind.EVAL:
            evals.setdefault(record.get("task", "all"), {})[step] = record
        elif kind == RecordKind.SKIPPED:
            skipped.add(record.get("batch", step))
        elif kind == RecordKind.ROLLBACK:
            rollbacks += 1
            drop_past(record.get("back_to", step))
    kept = {task: ascending(series) for task, series in sorted(evals.items()) if series}
    return Records(ascending(train), kept, len(skipped), rollbacks)


def experts_choose(facts: Record, stack: str) -> bool:
    """Says, by the facts of run.json, whether a stack's experts choose their tokens."""
    return facts.get(f"{stack}_router_type") == "experts_choose"


def preferred_task(tasks: Collection[str]) -> str | None:
    """Chooses the task to compare on: "all", the mean over tasks, if it is there; None for none."""
    return "all" if "all" in tasks else min(tasks, default=None)
