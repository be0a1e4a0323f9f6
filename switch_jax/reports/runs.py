"""Reads a run's folder for the report, also while the run is still going on."""

import dataclasses
import os
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from etils import epath

from switch_jax.config.model import router_names
from switch_jax.errors import UserError
from switch_jax.reports.expert_tokens import LayerTokens, tokens_by_layer
from switch_jax.run_folder import (
    Record,
    RecordKind,
    RunFolder,
    RunPhase,
    read_config,
    read_expert_tokens,
    read_metrics,
    read_run_json,
    read_status_json,
)
from switch_jax.run_folder.schemas import STACKS
from switch_jax.schema import printable
from switch_jax.storage import exists, is_folder


@dataclasses.dataclass(frozen=True)
class Series:
    """Numbers of a run, in ascending order of steps.

    Attributes:
      step: [T] int.
      seconds: [T] float, training time since the run's first step, continued over resumes.
      values: name -> [T] float; NaN where a record lacks the number.
    """

    step: np.ndarray
    seconds: np.ndarray
    values: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.step)

    def get(self, name: str) -> np.ndarray:
        """The values [T] of one number; all NaN where the run never logged it."""
        return self.values.get(name, np.full(len(self), np.nan))

    def last(self, name: str) -> float:
        """The last value; NaN where there is none."""
        return float(self.get(name)[-1]) if len(self) else float("nan")

    def median(self, name: str) -> float:
        """The median of the finite values; NaN where there are none."""
        values = self.get(name)
        values = values[np.isfinite(values)]
        return float(np.median(values)) if len(values) else float("nan")


@dataclasses.dataclass(frozen=True)
class RouterLayer:
    """The routing of one Switch layer.

    Attributes:
      stack: "encoder" or "decoder".
      name: of the layer in its stack, see `router_names`.
      step: [T] int.
      load: [T, E], fraction of the tokens that chose each expert; a row sums to 1. Padding does
        not count.
      dropped: [T], fraction of the tokens dropped.
      entropy: [T], mean router entropy in nats; at most ln E.
    """

    stack: str
    name: str
    step: np.ndarray
    load: np.ndarray
    dropped: np.ndarray
    entropy: np.ndarray

    @property
    def title(self) -> str:
        return f"{self.stack.capitalize()} {self.name} (Switch)"

    @property
    def num_experts(self) -> int:
        return self.load.shape[1]


@dataclasses.dataclass(frozen=True)
class Origin:
    """The checkpoint MODEL_DIR/checkpoints/STEP that a run started from.

    Attributes:
      name: of the run that saved it; of its folder, where that cannot be read.
      step: of the checkpoint.
      run: that saved it; None where its folder cannot be read: moved, or not of this program.
    """

    name: str
    step: int
    run: "Run | None"


@dataclasses.dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
      name: from run.json; the folder's name where there is none.
      folder: as the user wrote it.
      facts: the valid fields of run.json; empty where there is none.
      config: the operative config, text of config.gin; empty where there is none.
      train: the training log.
      evals: held-out evaluations by task; "all" is the token-weighted mean over tasks.
      layers: the sparse layers, encoder before decoder; empty for a dense run.
      left_out: one line for each file with content that is not valid, and was left out.
      generated: the tasks' own metrics of generated text, of a run with INFER_EVAL: task -> step ->
        metric -> value.
      expert_tokens: what `switch_jax eval` found that the experts take, at the newest checkpoint;
        empty where it has not been run.
      skipped_steps: number of bad steps, which changed nothing; see `count_skipped`.
      rollbacks: number of returns to a checkpoint after many bad steps.
      ended: whether the run says that it is finished, after all its steps or early.
      origin: the checkpoint that it started from; None for a run that started from scratch, or
        where run.json names no run's checkpoint.
    """

    name: str
    folder: str
    facts: dict[str, Any]
    config: str
    train: Series
    evals: dict[str, Series]
    layers: tuple[RouterLayer, ...]
    left_out: tuple[str, ...]
    generated: dict[str, dict[int, dict[str, float]]] = dataclasses.field(default_factory=dict)
    expert_tokens: tuple[LayerTokens, ...] = ()
    skipped_steps: int = 0
    rollbacks: int = 0
    ended: bool = False
    origin: Origin | None = None

    @property
    def dense(self) -> bool:
        return self.facts.get("num_experts") == 0

    @property
    def sparse(self) -> bool:
        return bool(self.facts.get("num_experts"))

    @property
    def fine_tuned(self) -> bool:
        """Whether it started from the parameters of another run."""
        return bool(self.facts.get("initial_checkpoint"))

    @property
    def from_scratch(self) -> bool:
        """Whether it learnt from its text alone: from no other run's parameters, nor a teacher."""
        return not self.fine_tuned and not self.facts.get("teacher_checkpoint")

    @property
    def seed(self) -> int | None:
        """Of parameters, noise and the order of the data; None where run.json lacks it."""
        return self.facts.get("seed")

    @property
    def last_step(self) -> int:
        return max(int(s.step[-1]) for s in (self.train, *self.evals.values()) if len(s))

    @property
    def seconds(self) -> float:
        """Training wall time so far."""
        return max(float(s.seconds[-1]) for s in (self.train, *self.evals.values()) if len(s))

    @property
    def unfinished(self) -> bool:
        """Whether the run has done fewer steps than run.json plans, and has not stopped early."""
        return not self.ended and self.last_step < self.facts.get("train_steps", 0)


def read_runs(folders: Iterable[str | os.PathLike[str]]) -> list[Run]:
    """Reads several run folders; runs of the same name get their folder added to the name.

    Raises:
      UserError: see `read_run`.
    """
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    return [
        dataclasses.replace(run, name=f"{run.name} ({printable(run.folder)})")
        if names.count(run.name) > 1
        else run
        for run in runs
    ]


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Reads one run folder (MODEL_DIR), local or gs://, and those of the runs it came from.

    Raises:
      UserError: the folder or its metrics.jsonl is missing, or holds no valid record.
    """
    return _read_run(folder, ())


def _read_run(folder: str | os.PathLike[str], later: tuple[str, ...]) -> Run:
    """`read_run`; later: the folders through which it was reached, from checkpoint to run."""
    run_folder = RunFolder.at(folder)
    path, file = run_folder.path, run_folder.metrics
    if not is_folder(path):
        raise UserError(
            f"no run folder {folder}: name the folder a training wrote to (its MODEL_DIR), "
            f"the one that holds {file.name}"
        )
    if not exists(file):
        raise UserError(
            f"no {file.name} in {folder}: it is written from the first logged step on; "
            f"the folder holds {', '.join(sorted(p.name for p in path.iterdir())) or 'nothing'}"
        )
    metrics = read_metrics(run_folder)
    train, evals = drop_lost_attempts(metrics.value)
    if not train and not evals:
        why = f" ({metrics.left_out})" if metrics.left_out else ""
        raise UserError(
            f"{file} holds no complete train or eval line yet: wait for the first logged step{why}"
        )
    facts, config = read_run_json(run_folder), read_config(run_folder)
    status, expert_tokens = read_status_json(run_folder), read_expert_tokens(run_folder)
    files = (metrics, facts, config, status, *expert_tokens)
    return Run(
        name=facts.value.get("name") or printable(path.name),
        folder=str(folder),
        facts=facts.value,
        config=config.value,
        train=_series(train),
        evals={task: _series(records) for task, records in sorted(evals.items())},
        layers=tuple(_router_layers(train)),
        left_out=tuple(file.left_out for file in files if file.left_out),
        generated={
            task: by_step
            for task, records in sorted(evals.items())
            if (by_step := {r["step"]: r["generated"] for r in records if r.get("generated")})
        },
        expert_tokens=tokens_by_layer([record for file in expert_tokens for record in file.value]),
        skipped_steps=count_skipped(metrics.value),
        rollbacks=count_rollbacks(metrics.value),
        ended=status.value.get("state") == RunPhase.FINISHED,
        origin=_origin(facts.value.get("initial_checkpoint"), path, later),
    )


def _origin(
    checkpoint: str | None, run_folder: epath.Path, later: tuple[str, ...]
) -> Origin | None:
    path = epath.Path(checkpoint or "")
    if not path.name.isdecimal():
        return None
    folder, step = path.parent.parent, int(path.name)
    is_moved = not is_folder(folder)
    if is_moved:  # perhaps with this run
        folder = run_folder.parent / folder.name
    # Its folder may by now be of a run that came from this one.
    if str(folder) in (*later, str(run_folder)):
        return Origin(folder.name, step, None)
    try:
        run = _read_run(folder, (*later, str(folder)))
    except UserError:
        return Origin(folder.name, step, None)
    if is_moved and run.last_step < step:  # another run of this name
        return Origin(folder.name, step, None)
    return Origin(run.name, step, run)


def drop_lost_attempts(
    records: Iterable[Record],
) -> tuple[list[Record], dict[str, list[Record]]]:
    """The train records that count, and the eval records that count by task.

    Of records of the same step the later one counts. A train record of an earlier step than the one
    before it shows that the run was resumed from a checkpoint, and a rollback names the step that
    it returned to. The records past that step are of an attempt that was lost, and would otherwise
    stand as the run's end until it has caught up, or for good.
    """
    train: dict[int, Record] = {}
    evals: dict[str, dict[int, Record]] = {}
    last_train_step = -1

    def drop_past(step: int) -> None:
        for series in (train, *evals.values()):
            for lost in [s for s in series if s > step]:
                del series[lost]

    for record in records:
        kind, step = record["kind"], record["step"]
        if kind == RecordKind.TRAIN:
            if step <= last_train_step:
                drop_past(step)
            last_train_step = step
            train[step] = record
        elif kind == RecordKind.EVAL:
            evals.setdefault(record.get("task", "all"), {})[step] = record
        elif kind == RecordKind.ROLLBACK and "back_to" in record:
            drop_past(record["back_to"])
    kept = {task: _ascending(series) for task, series in evals.items() if series}
    return _ascending(train), kept


def count_skipped(records: Iterable[Record]) -> int:
    """The number of batches that were skipped as bad, in lost attempts too.

    A batch that was skipped again after a restart counts once.
    """
    skipped = (record for record in records if record["kind"] == RecordKind.SKIPPED)
    return len({record.get("batch", record["step"]) for record in skipped})


def count_rollbacks(records: Iterable[Record]) -> int:
    """The number of returns to a checkpoint after many bad steps."""
    return sum(record["kind"] == RecordKind.ROLLBACK for record in records)


def _ascending(records: dict[int, Record]) -> list[Record]:
    return [records[step] for step in sorted(records)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else float("nan")


def _series(records: list[Record]) -> Series:
    names = {name: None for record in records for name, x in record.items() if _is_number(x)}
    columns = {name: np.array([_number(record.get(name)) for record in records]) for name in names}
    return Series(
        step=np.array([record["step"] for record in records], int),
        seconds=columns.get("seconds", np.full(len(records), np.nan)),
        values=columns,
    )


def _router_layers(records: list[Record]) -> Iterator[RouterLayer]:
    routed = [record for record in records if record.get("router")]
    if not routed:
        return
    first = routed[0]["router"]
    for stack in STACKS:
        if stack not in first:
            continue
        routers = [record["router"][stack] for record in routed]
        layers = first[stack]["layers"]
        sublayers = first[stack].get("sublayers", ["feed_forward"] * len(layers))
        for i, name in enumerate(router_names(layers, sublayers)):
            yield RouterLayer(
                stack=stack,
                name=name,
                step=np.array([record["step"] for record in routed], int),
                load=np.array([router["load"][i] for router in routers], float),
                dropped=np.array([router["dropped"][i] for router in routers], float),
                entropy=np.array([router["entropy"][i] for router in routers], float),
            )
