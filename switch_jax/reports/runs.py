"""Reads a run's folder for the report, also while the run is still going on."""

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from etils import epath

from switch_jax.config.model import router_names
from switch_jax.errors import UserError
from switch_jax.reports.downstream import Scores, Setting, qualities, scores
from switch_jax.reports.records import QUALITY, experts_choose, preferred_task, that_count
from switch_jax.reports.series import Series
from switch_jax.run_folder import (
    OPTIONAL_ROUTER_STATISTICS,
    ROUTER_STATISTICS,
    STACKS,
    Record,
    RunFolder,
    RunPhase,
    read_config,
    read_eval_metrics,
    read_expert_tokens,
    read_metrics,
    read_run_json,
    read_status_json,
)
from switch_jax.storage import exists, is_folder
from switch_jax.units import printable


@dataclasses.dataclass(frozen=True)
class RouterLayer:
    """The routing of one Switch layer."""

    stack: str  # "encoder" or "decoder"
    name: str  # of the layer in its stack, see `router_names`
    statistics: Series  # those of a router: the load is [T, E], and a row of it sums to 1

    @property
    def title(self) -> str:
        return f"{self.stack.capitalize()} {self.name} (Switch)"

    @property
    def num_experts(self) -> int:
        return self.statistics.values["load"].shape[1]


@dataclasses.dataclass(frozen=True)
class Origin:
    """The checkpoint MODEL_DIR/checkpoints/STEP that a run started from."""

    name: str  # of the run that saved it; of its folder, where that cannot be read
    step: int
    run: "Run | None"  # None where its folder cannot be read: moved, or not of this program

    @property
    def quality(self) -> dict[str, float]:
        """Task -> held-out negative log perplexity of the checkpoint, nats, as far as it is known.

        It is that of the run's last evaluation before it, or else what `switch_jax eval` found.
        """
        if self.run is None:
            return {}
        found = {
            task: float(values[-1])
            for task, curve in self.run.evals.items()
            if len(values := curve.get(QUALITY)[curve.step <= self.step])
        }
        known = found or self.run.evaluated.get(self.step, {})
        return {task: x for task, x in known.items() if x is not None and math.isfinite(x)}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run folder."""

    name: str  # from run.json; the folder's name where there is none
    folder: str  # as the user wrote it
    facts: dict[str, Any]  # the valid fields of run.json; empty where there is none
    config: str  # the operative config, text of config.gin; empty where there is none
    train: Series  # the training log
    evals: dict[str, Series]  # by held-out task; "all" is the token-weighted mean over tasks
    layers: tuple[RouterLayer, ...] = ()  # encoder before decoder; empty for a dense run
    left_out: tuple[str, ...] = ()  # a line for each file with content that is not valid
    # Of the text that the run or `switch_jax eval` generated.
    scores: dict[Setting, Scores] = dataclasses.field(default_factory=dict)
    # What `switch_jax eval` found on all of the validation text: step -> task -> nats.
    evaluated: dict[int, dict[str, float]] = dataclasses.field(default_factory=dict)
    # At the newest checkpoint that was evaluated, see `_expert_tokens`.
    expert_tokens: dict[str, list[Record]] = dataclasses.field(default_factory=dict)
    skipped_steps: int = 0  # see `Records`
    rollbacks: int = 0
    ended: bool = False  # whether it says that it is finished, after all its steps or early
    origin: Origin | None = None  # None: from scratch, or from no run's checkpoint

    @property
    def dense(self) -> bool:
        return self.facts.get("num_experts") == 0

    def experts_choose(self, stack: str) -> bool:
        return experts_choose(self.facts, stack)

    @property
    def sparse(self) -> bool:
        return bool(self.facts.get("num_experts"))

    @property
    def from_scratch(self) -> bool:
        """Whether it learnt from its text alone: from no other run's parameters, nor a teacher."""
        return not (self.facts.get("initial_checkpoint") or self.facts.get("teacher_checkpoint"))

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

    @property
    def own_task(self) -> str | None:
        """The task that stands for it where the runs of a report have none in common."""
        return preferred_task(self.evals)


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


def read_run(folder: str | os.PathLike[str], later: tuple[str, ...] = ()) -> Run:
    """Reads one run folder (MODEL_DIR), local or gs://, and those of the runs it came from.

    `later` are the folders through which it was reached, from checkpoint to run.

    Raises:
      UserError: the folder or its metrics.jsonl is missing, or holds no valid record.
    """
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
    records = that_count(metrics.value)
    if not records.train and not records.evals:
        why = f" ({metrics.left_out})" if metrics.left_out else ""
        raise UserError(
            f"{file} holds no complete train or eval line yet: wait for the first logged step{why}"
        )
    facts, config = read_run_json(run_folder), read_config(run_folder)
    status, expert_tokens = read_status_json(run_folder), read_expert_tokens(run_folder)
    evaluation = read_eval_metrics(run_folder)
    files = (metrics, facts, config, status, *expert_tokens, evaluation)
    return Run(
        name=facts.value.get("name") or printable(path.name),
        folder=str(folder),
        facts=facts.value,
        config=config.value,
        train=_series(records.train),
        evals={task: _series(found) for task, found in records.evals.items()},
        layers=tuple(_router_layers(records.train)),
        left_out=tuple(file.left_out for file in files if file.left_out),
        scores=scores(records.evals, evaluation.value),
        evaluated=qualities(evaluation.value),
        expert_tokens=_expert_tokens([r for file in expert_tokens for r in file.value]),
        skipped_steps=records.skipped_steps,
        rollbacks=records.rollbacks,
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
    unknown = Origin(folder.name, step, None)
    # Its folder may by now be of a run that came from this one.
    if str(folder) in (*later, str(run_folder)):
        return unknown
    try:
        run = read_run(folder, (*later, str(folder)))
    except UserError:
        return unknown
    if is_moved and run.last_step < step:  # another run of this name
        return unknown
    return Origin(run.name, step, run)


def _series(records: Sequence[Record]) -> Series:
    """The numbers in records, each of another step."""
    numeric = [name for r in records for name, x in r.items() if isinstance(x, int | float)]
    return Series.of({record["step"]: record for record in records}, dict.fromkeys(numeric))


def _router_layers(records: Sequence[Record]) -> Iterator[RouterLayer]:
    by_step = {record["step"]: record["router"] for record in records if record.get("router")}
    first: Record = next(iter(by_step.values()), {})
    fields = [*ROUTER_STATISTICS, *OPTIONAL_ROUTER_STATISTICS]
    for stack in (stack for stack in STACKS if stack in first):
        layers = first[stack]["layers"]
        sublayers = first[stack].get("sublayers", ["feed_forward"] * len(layers))
        for i, name in enumerate(router_names(layers, sublayers)):
            of_layer = {
                step: {field: router[stack][field][i] for field in fields if field in router[stack]}
                for step, router in by_step.items()
            }
            yield RouterLayer(stack, name, Series.of(of_layer, fields))


def _expert_tokens(records: Sequence[Record]) -> dict[str, list[Record]]:
    """The records of files in `eval/expert_tokens` by Switch layer, text and step, in words."""
    layers = [record["layer"] for record in records]
    sublayers = [record.get("sublayer", "feed_forward") for record in records]
    found: dict[str, list[Record]] = {}
    for record, name in zip(records, router_names(layers, sublayers), strict=True):
        number = record["max_examples"]
        part = f", max_examples = {number}" if number else ""
        text = f"{record['task']} ({record['split']}{part}), step {record['step']:,}"
        found.setdefault(f"{record['stack'].capitalize()} {name}: {text}", []).append(record)
    return found
