"""Reads how a run is doing from the files in its folder alone, and writes it as text."""

import dataclasses
import itertools
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from switch_jax.reports.records import QUALITY, experts_choose, kept_records, preferred_task
from switch_jax.run_folder import (
    DESCRIPTION,
    MAX_WAITING,
    STATUS,
    TIME_CATEGORIES,
    Record,
    RunFolder,
    RunPhase,
    nothing_read,
    read_commit_time,
    read_object,
    read_records,
    stale_lock_holder,
    training_seconds,
)
from switch_jax.storage import exists, last_written, list_names
from switch_jax.utils.errors import UserError
from switch_jax.utils.units import aligned, beside_baseline, count, duration, percent, printable

# How many of the newest records are used to estimate the usual pace of a run.
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
    own_metrics: dict[str, float | None]  # the task's metrics of generated text, likewise
    majority_baseline: dict[str, float | None]  # see `evaluation.task_metrics.TaskResult`
    held_out_task: str | None
    held_out_step: int | None
    tokens_per_second: float | None  # of the last record
    tokens_per_second_per_chip: float | None
    seconds_left: float | None  # of a run that is running, see `_seconds_left`
    checkpoint: int | None  # step of the last one
    checkpoint_age: float | None  # since it was written
    goodput: float | None  # the steps' share of the time over all starts, 0 to 1
    spent: dict[str, float]  # seconds by category over all starts; see `monitoring.Goodput`
    silence: float  # since the folder last changed
    silence_limit: float  # after which the run counts as stalled
    experts: int  # in all Switch layers
    dead_experts: int  # those that no token chose between the last two records
    dropped: float | None  # fraction of the tokens, mean over the Switch layers whose tokens choose
    skipped_steps: int  # bad steps, which changed nothing; see `Records`
    rollbacks: int  # returns to a checkpoint after many bad steps
    damaged_checkpoints: list[str]  # names in the folder `damaged`
    left_out: list[str]  # a line for each file that is missing, or not read in full

    @property
    def needs_attention(self) -> bool:
        """Says whether the run does not go on by itself."""
        return self.state in (STALLED, RunPhase.FAILED)


def read_status(folder: str | os.PathLike[str], now: float | None = None) -> Status:
    """Reads a run's folder (MODEL_DIR), local or gs://, also while it is written.

    A run that has not ended is stalled when nothing in its folder (records, checkpoints,
    status.json) has changed for longer than `_silence_limit`, and at once where the process that
    trained was on this host and has ended. `now` is in seconds since the epoch, None for the
    clock's time. Raises UserError if it is no folder of a run, or nothing in it can be read;
    TransientError if the storage failed.
    """
    run_folder, now = RunFolder.at(folder), time.time() if now is None else now
    gone = stale_lock_holder(run_folder)  # first: a process that ends now says so in the files
    files = [
        read_object(run_folder.description, DESCRIPTION),
        read_object(run_folder.status, STATUS),
        read_records(run_folder.metrics),
    ]
    facts, status, records = (file.value for file in files)
    left_out = [file.left_out for file in files if file.left_out]
    if not (facts or status or records):
        if left_out:
            raise nothing_read(f"{folder} cannot be read: {left_out[0]}", files)
        if not exists(run_folder.path):
            raise UserError(f"there is no folder {folder}")
        why = "it has no run.json, status.json or metrics.jsonl"
        raise UserError(f"{folder} is no folder of a run, a training's MODEL_DIR: {why}")
    counted = kept_records(records)
    train, task = counted.train, preferred_task(counted.evals)
    last = train[-1] if train else {}
    held_out = counted.evals[task][-1] if task else {}
    checkpoint = max(run_folder.checkpoint_steps(), default=None)
    of_newest = None if checkpoint is None else run_folder.checkpoint(checkpoint)
    nanoseconds = None if of_newest is None else read_commit_time(of_newest)
    saved = None if nanoseconds is None else nanoseconds / 1e9
    written = last_written(run_folder.metrics)
    silence = max(0.0, now - max(written or 0.0, saved or 0.0, status.get("time", 0.0)))
    limit = _silence_limit(train, written is None or written < status.get("started", 0.0))
    state, message = _state(status, gone, silence, limit)
    if written is None and not (status or files[1].left_out):  # as `switch_jax convert` makes it
        state, message = RunPhase.STOPPED, "it has no record of any training"
    train_steps = facts.get("train_steps")
    routers = last.get("router") or {}
    loads = [load for router in routers.values() for load in router["load"]]
    # Where experts choose, some tokens are always in none.
    of_tokens = [router for stack, router in routers.items() if not experts_choose(facts, stack)]
    dropped = [x for router in of_tokens for x in router["dropped"] if x is not None]
    return Status(
        folder=printable(str(folder)),
        state=state,
        message=message,
        step=max(last.get("step", 0), held_out.get("step", 0)),
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
        left_out=left_out,
    )


def _state(
    status: Mapping[str, Any], gone: str | None, silence: float, limit: float
) -> tuple[str, str]:
    """Decides the state, and why, from status.json, `stale_lock_holder` and seconds of silence."""
    state = status.get("state", RunPhase.RUNNING)
    if state in (RunPhase.FINISHED, RunPhase.STOPPED, RunPhase.FAILED):
        return state, status.get("message", "")
    if status and gone:
        return STALLED, (
            f"{gone} is gone and did not write why (killed, or out of memory), unless this folder "
            "is a copy of one where it goes on"
        )
    if silence > limit:
        return STALLED, f"nothing was written for {silence:.0f} s, more than {limit:.0f} s"
    return state, ""


def _loss_rise(train: Sequence[Record]) -> tuple[float, float] | None:
    """Returns the mean losses of the first and the last records if the loss has risen, else None.

    The means are of five records each, or of each half of fewer than ten; fewer than four give
    None.
    """
    losses = [record["loss"] for record in train if record.get("loss") is not None]
    count = min(_ENDS, len(losses) // 2)
    if count < 2:
        return None
    first, last = statistics.fmean(losses[:count]), statistics.fmean(losses[-count:])
    return (first, last) if last > _RISE * first else None


def _silence_limit(train: Sequence[Record], no_record_yet: bool) -> float:
    """Computes after how many seconds without a write a run counts as stalled.

    These are at least `_MIN_LIMIT`: three times the usual time between records (the median of the
    last 20), plus the longest evaluation and the longest checkpoint. If the newest start has not
    written a record yet, `_START_LIMIT` is added, or three times the longest compilation so far if
    that is longer.
    """
    gaps = _gaps(train)
    longest = {c: max((gap[c] for gap in gaps), default=0.0) for c in TIME_CATEGORIES}
    usual = [training_seconds(gap) for gap in gaps[-_RECENT:]]
    pace = 3 * statistics.median(usual) if usual else 0.0
    limit = max(_MIN_LIMIT, pace + longest["eval"] + longest["checkpoint"])
    return limit + max(_START_LIMIT, 3 * longest["compile"]) if no_record_yet else limit


def _gaps(train: Sequence[Record]) -> list[dict[str, float]]:
    """Returns the seconds by category between records; the first gap begins with the run."""
    spent = [{}, *(record["spent"] for record in train if "spent" in record)]
    return [
        {c: max(0.0, new.get(c, 0.0) - old.get(c, 0.0)) for c in TIME_CATEGORIES}
        for old, new in itertools.pairwise(spent)
    ]


def _seconds_left(train: Sequence[Record], train_steps: int | None) -> float | None:
    """Estimates the time left from the last records, without the seconds of compilation."""
    recent = [record for record in train[-_RECENT - 1 :] if "spent" in record]
    if len(recent) < 2 or train_steps is None:
        return None
    seconds = sum(sum(gap.values()) - gap["compile"] for gap in _gaps(recent)[1:])
    pace = seconds / (recent[-1]["step"] - recent[0]["step"])
    return max(0, train_steps - recent[-1]["step"]) * pace


def page(status: Status) -> list[str]:
    """Writes lines about one run: the folder and the state, then a name and a value in each."""
    s = status
    early = s.train_steps is not None and s.step < s.train_steps
    state = "finished early" if s.state == RunPhase.FINISHED and early else s.state
    goes_on = s.state in (RunPhase.STARTING, RunPhase.RUNNING)
    rows = {
        "step": (f"{s.step:,}" + _known(" of {:,}", s.train_steps or None))
        + (f", {duration(s.seconds_left)} left" if s.train_steps and s.seconds_left else ""),
        "loss": _known("{:.4g}", s.loss, "-"),
        "held out": held_out(s) or "-",
        "speed": _known("{} tokens/s", s.tokens_per_second, "-", count)
        + _known(", {} per chip", s.tokens_per_second_per_chip, form=count),
        "goodput": _goodput(s),
        "checkpoint": _known("step {:,}", s.checkpoint, "none yet")
        + _known(", {} ago", s.checkpoint_age, form=duration),
        "last write": f"{duration(s.silence)} ago"
        + (f"; stalled after {duration(s.silence_limit)}" if goes_on else ""),
        "health": "; ".join(health(s)) or "nothing unusual",
    }
    head = f"{s.folder}: {state}: {s.message}" if s.message else f"{s.folder}: {state}"
    return [head, *(f"  {name:<11}{text}" for name, text in rows.items())]


def table(found: Sequence[Status]) -> list[str]:
    """Writes a line for each run, below a heading."""
    rows = [
        (
            s.folder,
            s.state,
            f"{s.step:,}" + _known("/{:,}", s.train_steps or None),
            _known("{:.4g}", s.loss, "-"),
            _known("{}", s.tokens_per_second, "-", count),
            _known("{}", s.seconds_left or None, "-", duration),
            _known("{:,}", s.checkpoint, "-"),
            "; ".join(health(s)) or "-",
        )
        for s in found
    ]
    heads = ("run", "state", "step", "loss", "tokens/s", "left", "checkpoint", "health")
    return aligned([heads, *rows])


def held_out(status: Status) -> str:
    """Describes the last evaluation, the task's metrics first; empty if there was none."""
    if status.held_out_step is None:
        return ""
    values = []
    if status.own_metrics:
        own = beside_baseline(status.own_metrics, status.majority_baseline)
        values.append(f"generated text: {own}")
    if status.held_out is not None:
        values.append(f"negative log perplexity {status.held_out:.4f}")
    return f"{'; '.join(values) or '-'} of {status.held_out_task} at step {status.held_out_step:,}"


def health(status: Status) -> list[str]:
    """Lists what is unusual about a run."""
    found = []
    if status.loss_rise:
        found.append(loss_rise(*status.loss_rise))
    if status.dead_experts:
        found.append(f"{status.dead_experts:,} of {status.experts:,} experts got no token")
    if status.dropped is not None and status.dropped > 0.1:
        found.append(f"{percent(status.dropped)} of the tokens dropped")
    training = training_seconds(status.spent) if status.spent else 0.0
    if training and (waiting := status.spent.get("data", 0.0)) > MAX_WAITING * training:
        share = percent(waiting / training)
        found.append(
            f"{share} of the time without compilation, evaluations and checkpoints was spent "
            "waiting for data"
        )
    others = {
        "bad steps skipped": f"{status.skipped_steps:,}" if status.skipped_steps else "",
        "returns to a checkpoint": f"{status.rollbacks:,}" if status.rollbacks else "",
        "damaged checkpoints": ", ".join(status.damaged_checkpoints),
    }
    return found + [f"{what}: {text}" for what, text in others.items() if text]


def loss_rise(first: float, last: float) -> str:
    """Says that the loss has risen since the start of the run; see `Status.loss_rise`."""
    return (
        f"the loss has risen from {first:.4g} to {last:.4g}: is LEARNING_RATE too high, or is the "
        "data another one?"
    )


def _known(
    text: str, value: float | None, otherwise: str = "", form: Callable[[Any], Any] = lambda x: x
) -> str:
    """Puts the value into the text, or returns `otherwise` if the value is not known."""
    return otherwise if value is None else text.format(form(value))


def _goodput(status: Status) -> str:
    if status.goodput is None:
        return "-"
    total = sum(status.spent.values())
    text = f"{percent(status.goodput)} of {duration(total)} in steps"
    rest = [f"{kind} {duration(x)}" for kind, x in status.spent.items() if kind != "step" and x]
    return f"{text}; {', '.join(rest)}" if rest else text
