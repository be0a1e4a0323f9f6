"""How a run is doing, from the files in its folder alone."""

import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from switch_jax.errors import UserError
from switch_jax.reports.records import QUALITY, experts_choose, preferred_task, that_count
from switch_jax.run_folder import (
    TIME_CATEGORIES,
    Record,
    RunFolder,
    RunPhase,
    process_that_is_gone,
    read_commit_time,
    read_metrics,
    read_run_json,
    read_status_json,
    training_seconds,
)
from switch_jax.storage import is_folder, last_written, list_names
from switch_jax.units import printable

# The newest records, by which the usual pace of a run is estimated.
_RECENT = 20
# Seconds of silence that are never a stall: the clocks of two machines differ, and buckets show the
# end of a file late.
_MIN_LIMIT = 120.0
# Seconds in addition until the first record of a start: a large model compiles for long.
_START_LIMIT = 1800.0
_ENDS = 5  # the records at each end by which the loss has risen
_RISE = 1.1  # by which factor it has to
STALLED = "stalled"  # the state of a run that has not ended, and does not go on


@dataclasses.dataclass(frozen=True)
class Status:
    """How a run is doing. Times are in seconds; None: not known, or not yet."""

    folder: str  # as the user wrote it
    state: str  # a `RunPhase`, or STALLED; of a run that has never trained, stopped
    message: str  # why it failed, stopped or counts as stalled
    step: int  # steps done
    train_steps: int | None  # steps planned
    loss: float | None  # of the last record, the auxiliary losses included
    loss_rise: tuple[float, float] | None  # see `_loss_rise`
    held_out: float | None  # last negative log perplexity of a validation set, nats
    own_metrics: dict[str, float | None]  # of generated text, at the same evaluation
    majority_baseline: dict[str, float | None]  # see `TaskEvaluator.majority_baseline`
    held_out_task: str | None
    held_out_step: int | None
    tokens_per_second: float | None  # of the last record
    tokens_per_second_per_chip: float | None
    seconds_left: float | None  # of a run that is running, see `_seconds_left`
    checkpoint: int | None  # step of the last one
    checkpoint_age: float | None  # since it was written
    goodput: float | None  # the steps' share of the time over all starts, 0 to 1
    spent: dict[str, float]  # seconds by category over all starts; see `metrics.Goodput`
    silence: float  # since the folder last changed
    silence_limit: float  # after which the run counts as stalled
    experts: int  # in all Switch layers
    dead_experts: int  # that no token chose between the last two records
    dropped: float | None  # fraction of the tokens, mean over the Switch layers whose tokens choose
    skipped_steps: int  # bad steps, which changed nothing; see `Records`
    rollbacks: int  # returns to a checkpoint after many bad steps
    damaged_checkpoints: list[str]  # names in the folder `damaged`
    hanging: list[str]  # files with the stacks of processes that took too long over a step
    left_out: list[str]  # a line for each file that is missing, or not read in full

    @property
    def needs_attention(self) -> bool:
        """Whether the run does not go on by itself."""
        return self.state in (STALLED, RunPhase.FAILED)


def read_status(folder: str | os.PathLike[str], now: float | None = None) -> Status:
    """Reads a run's folder (MODEL_DIR), local or gs://, also while it is written.

    A run that has not ended is stalled when its folder has not changed for longer than three times
    the usual time between its records (the median of the last 20), its longest evaluation and its
    longest checkpoint together, and for at least two minutes. Before the first record of a start
    half an hour is added, or three times its longest compilation so far if that is longer. The
    changes that count are those of metrics.jsonl, status.json and the checkpoints. It is stalled at
    once where the process that trained was on this host and is gone. `now` is in seconds since the
    epoch; None: the time of the clock.

    Raises:
      UserError: it is no folder of a run.
    """
    run_folder = RunFolder.at(folder)
    now = time.time() if now is None else now
    gone = process_that_is_gone(run_folder)  # first: a process that ends now says so in the files
    files = [read(run_folder) for read in (read_run_json, read_status_json, read_metrics)]
    facts, status, records = (file.value for file in files)
    left_out = [file.left_out for file in files if file.left_out]
    if not (facts or status or records):
        if not is_folder(run_folder.path):
            raise UserError(
                f"no run folder {folder}: name the folder a training writes to, MODEL_DIR"
            )
        names = [run_folder.status.name, run_folder.description.name, run_folder.metrics.name]
        raise UserError(
            "; ".join(left_out)
            or f"{folder} is no folder of a run: it has no {', '.join(names[:-1])} or {names[-1]}"
        )
    if records and not (facts or files[0].left_out):
        missing = run_folder.description
        left_out.append(f"there is no {missing}, which says how many steps are planned")
    counted = that_count(records)
    train, evals = counted.train, counted.evals
    last = train[-1] if train else {}
    task = preferred_task(evals)
    held_out = evals[task][-1] if task else {}
    checkpoint = max(run_folder.checkpoint_steps(), default=None)
    saved = None if checkpoint is None else read_commit_time(run_folder.checkpoint(checkpoint))
    written = last_written(run_folder.metrics)
    silence = max(0.0, now - max(written or 0.0, saved or 0.0, status.get("time", 0.0)))
    no_record_yet = written is None or written < status.get("started", 0.0)
    limit = _silence_limit(train, no_record_yet)
    step = max([0, *(record["step"] for record in (last, held_out) if record)])
    train_steps = facts.get("train_steps")
    done = train_steps is not None and step >= train_steps
    state, message = _state(status, done, gone, silence, limit)
    if written is None and not (status or files[1].left_out):  # as `switch_jax convert` makes it
        state, message = RunPhase.STOPPED, "it has no record of any training"
    routers = last.get("router") or {}
    loads = [load for router in routers.values() for load in router["load"]]
    # Where experts choose, some tokens are always in none.
    of_tokens = [router for stack, router in routers.items() if not experts_choose(facts, stack)]
    dropped = [x for router in of_tokens for x in router["dropped"] if x is not None]
    return Status(
        folder=printable(str(folder)),
        state=state,
        message=message,
        step=step,
        train_steps=train_steps,
        loss=last.get("loss"),
        loss_rise=_loss_rise(train),
        held_out=held_out.get(QUALITY),
        own_metrics=held_out.get("generated", {}),
        majority_baseline=held_out.get("majority_baseline", {}),
        held_out_task=task,
        held_out_step=held_out.get("step"),
        tokens_per_second=last.get("tokens_per_second"),
        tokens_per_second_per_chip=last.get("tokens_per_second_per_chip"),
        seconds_left=_seconds_left(train, train_steps) if state == RunPhase.RUNNING else None,
        checkpoint=checkpoint,
        checkpoint_age=None if saved is None else max(0.0, now - saved),
        goodput=last.get("goodput"),
        spent=last.get("spent", {}),
        silence=silence,
        silence_limit=limit,
        experts=sum(map(len, loads)),
        dead_experts=sum(load.count(0) for load in loads),
        dropped=statistics.fmean(dropped) if dropped else None,
        skipped_steps=counted.skipped_steps,
        rollbacks=counted.rollbacks,
        damaged_checkpoints=[printable(name) for name in list_names(run_folder.damaged)],
        hanging=[printable(path.name) for path in run_folder.hanging_processes()],
        left_out=left_out,
    )


def _state(
    status: Mapping[str, Any], done: bool, gone: str | None, silence: float, limit: float
) -> tuple[str, str]:
    """The state, and why.

    `status` is the content of status.json, empty for a run of a version that did not write it.
    `done`: whether all planned steps are done. `gone`: see `process_that_is_gone`. `silence` and
    `limit` are seconds.
    """
    state = status.get("state", RunPhase.RUNNING)
    if state in (RunPhase.FINISHED, RunPhase.STOPPED, RunPhase.FAILED):
        return state, status.get("message", "")
    if not status and done:
        return RunPhase.FINISHED, ""
    if status and gone:
        return STALLED, (
            f"{gone} is gone and did not write why (killed, or out of memory): look at its log, "
            "then start it again, unless this folder is a copy of one where it goes on"
        )
    if silence > limit:
        return STALLED, f"nothing was written for {silence:.0f} s, more than {limit:.0f} s"
    return state, ""


def _loss_rise(train: Sequence[Record]) -> tuple[float, float] | None:
    """The mean losses of the first and of the last records, where it has risen; None: it has not.

    They are five each, or the first and last half of fewer than ten; of fewer than four, none.
    """
    losses = [record["loss"] for record in train if record.get("loss") is not None]
    count = min(_ENDS, len(losses) // 2)
    if count < 2:
        return None
    first, last = statistics.fmean(losses[:count]), statistics.fmean(losses[-count:])
    return (first, last) if last > _RISE * first else None


def _silence_limit(train: Sequence[Record], no_record_yet: bool) -> float:
    """Seconds; `no_record_yet`: the newest start of the run has not written one."""
    gaps = _gaps(train)
    longest = {c: max((gap[c] for gap in gaps), default=0.0) for c in TIME_CATEGORIES}
    usual = [training_seconds(gap) for gap in gaps[-_RECENT:]]
    pace = 3 * statistics.median(usual) if usual else 0.0
    limit = max(_MIN_LIMIT, pace + longest["eval"] + longest["checkpoint"])
    return limit + max(_START_LIMIT, 3 * longest["compile"]) if no_record_yet else limit


def _gaps(train: Sequence[Record]) -> list[dict[str, float]]:
    """Seconds by category from each record to the next; the first gap begins with the run."""
    spent = [{}, *(record["spent"] for record in train if "spent" in record)]
    return [
        {c: max(0.0, new.get(c, 0.0) - old.get(c, 0.0)) for c in TIME_CATEGORIES}
        for old, new in itertools.pairwise(spent)
    ]


def _seconds_left(train: Sequence[Record], train_steps: int | None) -> float | None:
    """At the pace of the last records, with evaluations and checkpoints.

    Without compilation, which is done.
    """
    recent = [record for record in train[-_RECENT - 1 :] if "spent" in record]
    if len(recent) < 2 or train_steps is None:
        return None
    seconds = sum(sum(gap.values()) - gap["compile"] for gap in _gaps(recent)[1:])
    pace = seconds / (recent[-1]["step"] - recent[0]["step"])
    return max(0, train_steps - recent[-1]["step"]) * pace
