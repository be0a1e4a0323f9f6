"""How a run is doing, from the files in its folder alone."""

import dataclasses
import fnmatch
import os
import statistics
import time
from collections.abc import Sequence
from typing import Any

from etils import epath

from switch_jax import run_folder
from switch_jax.errors import UserError
from switch_jax.reports.runs import resolve
from switch_jax.reports.summary import QUALITY, preferred
from switch_jax.schema import clean

# Records that tell how a run usually goes.
_RECENT = 20
# Least seconds of silence that are called a stall: the clocks of two machines differ, and buckets
# show a file's end late.
_SHORTEST_LIMIT = 120.0
# The same until the first record of a start: a large model compiles for long.
_START_LIMIT = 1800.0


@dataclasses.dataclass(frozen=True)
class Status:
    """What a run's folder says. Times are in seconds; None: not known, or not yet.

    Attributes:
      folder: as the user wrote it.
      state: 'starting', 'running', 'stalled', 'stopped' (by a signal), 'failed' or 'finished'.
      message: why it failed, stopped or counts as stalled.
      step, train_steps: steps done, of how many.
      loss: of the last record, the auxiliary losses included.
      held_out: last negative log perplexity of a validation set, nats.
      held_out_task, held_out_step: which and when.
      tokens_per_second, tokens_per_second_per_chip: of the last record.
      seconds_left: of a run that is running, at the pace of the last records, evaluations and
        checkpoints included.
      checkpoint: step of the last one.
      checkpoint_age: since it was written.
      goodput: the steps' share of the time over all starts, 0 to 1.
      spent: seconds by kind over all starts; see `metrics.Goodput`.
      silence: since the last sign of life.
      silence_limit: silence that counts as a stall.
      experts, dead_experts: in all Switch layers, and those that no token chose since the record
        before.
      dropped: fraction of the tokens that the Switch layers dropped, mean over layers.
      skipped_steps: bad steps that changed nothing.
      rollbacks: returns to a checkpoint after many bad steps.
      damaged_checkpoints: names in the folder `damaged`.
      hanging: files with the stacks of processes that took too long over a step.
      left_out: one line for each file of which something did not fit, and was left out.
    """

    folder: str
    state: str
    message: str
    step: int
    train_steps: int | None
    loss: float | None
    held_out: float | None
    held_out_task: str | None
    held_out_step: int | None
    tokens_per_second: float | None
    tokens_per_second_per_chip: float | None
    seconds_left: float | None
    checkpoint: int | None
    checkpoint_age: float | None
    goodput: float | None
    spent: dict[str, float]
    silence: float
    silence_limit: float
    experts: int
    dead_experts: int
    dropped: float | None
    skipped_steps: int
    rollbacks: int
    damaged_checkpoints: list[str]
    hanging: list[str]
    left_out: list[str]

    @property
    def needs_attention(self) -> bool:
        """Whether it does not go on by itself."""
        return self.state in ("stalled", "failed")


def read_status(folder: str | os.PathLike[str], now: float | None = None) -> Status:
    """Reads a run's folder (MODEL_DIR), local or gs://, also while it is written.

    A run that has not ended is stalled when its folder has been silent for longer than three times
    the usual time between its records (the median of the last 20) and its longest evaluation and
    checkpoint, and for two minutes at least; before the first record of a start, for half an hour
    more, or three times what it has ever taken to compile if that is longer. Signs of life are
    metrics.jsonl, status.json and the checkpoints.

    Args:
      folder: MODEL_DIR.
      now: seconds since the epoch; None: the clock's.

    Raises:
      UserError: it is no folder of a run.
    """
    path = epath.Path(folder).expanduser()
    if not path.is_dir():
        raise UserError(f"no run folder {folder}: name the folder a training writes to, MODEL_DIR")
    metrics, now = path / run_folder.METRICS, time.time() if now is None else now
    readers = run_folder.read_facts, run_folder.read_life, run_folder.read_metrics
    files = [read(path) for read in readers]
    facts, life, records = (file.value for file in files)
    left_out = [file.left_out for file in files if file.left_out]
    if not (facts or life or records):
        raise UserError(
            "; ".join(left_out)
            or f"{folder} is no folder of a run: it has no status.json, run.json or metrics.jsonl"
        )
    train, evals = resolve(records)
    last = train[-1] if train else {}
    task = preferred(set(evals))
    held_out = evals[task][-1] if task else {}
    checkpoint, saved = _last_checkpoint(path / "checkpoints")
    written = metrics.stat().mtime if metrics.exists() else None
    silence = max(0.0, now - max(written or 0.0, saved or 0.0, life.get("time", 0.0)))
    fresh = written is None or written < life.get("started", 0.0)
    limit = _silence_limit(train, fresh)
    step = max([0, *(line["step"] for line in (last, held_out) if line)])
    state, message = _state(life, step, facts.get("train_steps"), silence, limit)
    routers = list((last.get("router") or {}).values())
    loads = [load for router in routers for load in router["load"]]
    dropped = [x for router in routers for x in router["dropped"] if x is not None]
    return Status(
        folder=clean(str(folder)),
        state=state,
        message=message,
        step=step,
        train_steps=facts.get("train_steps"),
        loss=last.get("loss"),
        held_out=held_out.get(QUALITY),
        held_out_task=task,
        held_out_step=held_out.get("step"),
        tokens_per_second=last.get("tokens_per_second"),
        tokens_per_second_per_chip=last.get("tokens_per_second_per_chip"),
        seconds_left=_seconds_left(train, facts.get("train_steps")) if state == "running" else None,
        checkpoint=checkpoint,
        checkpoint_age=None if saved is None else max(0.0, now - saved),
        goodput=last.get("goodput"),
        spent=last.get("spent", {}),
        silence=silence,
        silence_limit=limit,
        experts=sum(map(len, loads)),
        dead_experts=sum(load.count(0) for load in loads),
        dropped=statistics.fmean(dropped) if dropped else None,
        skipped_steps=sum(line.get("skipped_steps", 0) for line in train),
        rollbacks=sum(record["kind"] == "rollback" for record in records),
        damaged_checkpoints=_names(path / "damaged", "*"),
        hanging=_names(path, "hanging_process_*.txt"),
        left_out=left_out,
    )


def _state(
    life: dict[str, Any], step: int, train_steps: int | None, silence: float, limit: float
) -> tuple[str, str]:
    """The state, and why."""
    state = life.get("state", "running")
    if state in ("finished", "stopped", "failed"):
        return state, life.get("message", "")
    if not life and train_steps is not None and step >= train_steps:
        return "finished", ""
    if silence > limit:
        return "stalled", f"no sign of life for {silence:.0f} s, more than {limit:.0f} s"
    return state, ""


def _silence_limit(train: Sequence[dict[str, Any]], fresh: bool) -> float:
    """Seconds; `fresh`: no record of this start is there yet."""
    gaps = _gaps(train)
    kinds = run_folder.SPENT_KINDS
    longest = {kind: max((gap[kind] for gap in gaps), default=0.0) for kind in kinds}
    training = [gap["step"] + gap["data"] + gap["idle"] for gap in gaps[-_RECENT:]]
    usual = 3 * statistics.median(training) if training else 0.0
    limit = max(_SHORTEST_LIMIT, usual + longest["eval"] + longest["checkpoint"])
    return limit + max(_START_LIMIT, 3 * longest["compile"]) if fresh else limit


def _gaps(train: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Seconds by kind from each record to the next, the first one's from the start of the run."""
    spent = [{}, *(line["spent"] for line in train if "spent" in line)]
    return [
        {kind: max(0.0, new.get(kind, 0.0) - old.get(kind, 0.0)) for kind in run_folder.SPENT_KINDS}
        for old, new in zip(spent, spent[1:], strict=False)
    ]


def _seconds_left(train: Sequence[dict[str, Any]], train_steps: int | None) -> float | None:
    """At the pace of the last records; compilation is over."""
    recent = [line for line in train[-_RECENT - 1 :] if "spent" in line]
    if len(recent) < 2 or train_steps is None:
        return None
    seconds = sum(sum(gap.values()) - gap["compile"] for gap in _gaps(recent)[1:])
    pace = seconds / (recent[-1]["step"] - recent[0]["step"])
    return max(0, train_steps - recent[-1]["step"]) * pace


def _last_checkpoint(checkpoints: epath.Path) -> tuple[int | None, float | None]:
    """Its step, and when it was written."""
    names = _names(checkpoints, "*")
    step = max((int(name) for name in names if name.isdecimal()), default=None)
    if step is None:
        return None, None
    return step, run_folder.saved_at(checkpoints / str(step))


def _names(folder: epath.Path, pattern: str) -> list[str]:
    """Of what lies right in the folder; `glob` would list all that is below it in a bucket."""
    names = [clean(found.name) for found in folder.iterdir()] if folder.is_dir() else []
    return sorted(fnmatch.filter(names, pattern))
