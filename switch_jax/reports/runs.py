"""Reads what a training has written into its folder, also while it is still writing."""

import dataclasses
import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from etils import epath

from switch_jax import run_folder
from switch_jax.errors import UserError
from switch_jax.schema import clean


@dataclasses.dataclass(frozen=True)
class Series:
    """Numbers of a run, in ascending order of steps.

    Attributes:
      step: [T] int.
      seconds: [T] float, training wall time since the run's first step, continued over resumes.
      values: name -> [T] float; NaN where a line lacks the number.
    """

    step: np.ndarray
    seconds: np.ndarray
    values: dict[str, np.ndarray]

    def __len__(self) -> int:
        return len(self.step)

    def get(self, name: str) -> np.ndarray:
        """The [T] values of one number; NaN throughout where the run never logged it."""
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
    """What the router of one sparse layer did.

    Attributes:
      stack: "encoder" or "decoder".
      layer: the layer's index in its stack.
      step: [T] int.
      load: [T, E], fraction of the real tokens that chose each expert; a row sums to 1.
      dropped: [T], fraction of the real tokens dropped.
      entropy: [T], mean router entropy in nats; ln E at most.
    """

    stack: str
    layer: int
    step: np.ndarray
    load: np.ndarray
    dropped: np.ndarray
    entropy: np.ndarray

    @property
    def title(self) -> str:
        return f"{self.stack.capitalize()} layer {self.layer} (Switch)"

    @property
    def num_experts(self) -> int:
        return self.load.shape[1]


@dataclasses.dataclass(frozen=True)
class Run:
    """One run folder.

    Attributes:
      name: from run.json; the folder's name where there is none.
      folder: as the user wrote it.
      facts: what fits of run.json; empty where there is none.
      config: text of config.gin, the operative config; empty where there is none.
      train: the training log.
      evals: held-out evaluations by task; "all" is the token-weighted mean over tasks.
      layers: the sparse layers, encoder before decoder; empty for a dense run.
      left_out: one line for each file of which something did not fit, and was left out.
    """

    name: str
    folder: str
    facts: dict[str, Any]
    config: str
    train: Series
    evals: dict[str, Series]
    layers: tuple[RouterLayer, ...]
    left_out: tuple[str, ...]

    @property
    def dense(self) -> bool:
        return self.facts.get("num_experts") == 0

    @property
    def sparse(self) -> bool:
        return bool(self.facts.get("num_experts"))

    @property
    def last_step(self) -> int:
        return max(int(s.step[-1]) for s in (self.train, *self.evals.values()) if len(s))

    @property
    def seconds(self) -> float:
        """Training wall time so far."""
        return max(float(s.seconds[-1]) for s in (self.train, *self.evals.values()) if len(s))

    @property
    def skipped_steps(self) -> int:
        """Steps that the guard took for bad, in the log as it stands."""
        return int(np.nansum(self.train.get("skipped_steps")))

    @property
    def unfinished(self) -> bool:
        """Whether steps that run.json plans are still missing."""
        return self.last_step < self.facts.get("train_steps", 0)


def read_runs(folders: Iterable[str | os.PathLike[str]]) -> list[Run]:
    """Reads several run folders; runs of the same name get their folder added to it.

    Raises:
      UserError: see `read_run`.
    """
    runs = [read_run(folder) for folder in folders]
    names = [run.name for run in runs]
    return [
        dataclasses.replace(run, name=f"{run.name} ({clean(run.folder)})")
        if names.count(run.name) > 1
        else run
        for run in runs
    ]


def read_run(folder: str | os.PathLike[str]) -> Run:
    """Reads one run folder (MODEL_DIR), local or gs://.

    Raises:
      UserError: the folder or its metrics.jsonl is missing, or holds no record that fits.
    """
    path = epath.Path(folder)
    if not path.is_dir():
        raise UserError(
            f"no run folder {folder}: name the folder a training wrote to (its MODEL_DIR), "
            "the one that holds metrics.jsonl"
        )
    file = path / run_folder.METRICS
    if not file.exists():
        raise UserError(
            f"no metrics.jsonl in {folder}: it is written from the first logged step on; "
            f"the folder holds {', '.join(sorted(p.name for p in path.iterdir())) or 'nothing'}"
        )
    metrics = run_folder.read_metrics(path)
    train, evals = resolve(metrics.value)
    if not train and not evals:
        why = f" ({metrics.left_out})" if metrics.left_out else ""
        raise UserError(
            f"{file} holds no complete train or eval line yet: wait for the first logged step{why}"
        )
    facts, config = run_folder.read_facts(path), run_folder.read_config(path)
    return Run(
        name=facts.value.get("name") or clean(path.name),
        folder=str(folder),
        facts=facts.value,
        config=config.value,
        train=_series(train),
        evals={task: _series(lines) for task, lines in sorted(evals.items())},
        layers=tuple(_router_layers(train)),
        left_out=tuple(x.left_out for x in (metrics, facts, config) if x.left_out),
    )


def resolve(lines: Iterable[dict]) -> tuple[list[dict], dict[str, list[dict]]]:
    """The valid train lines, and the valid eval lines by task.

    Of lines for the same step the later one wins. A train line that goes back to an earlier step
    is a resume from a checkpoint: what was logged past it belongs to the attempt that was lost, and
    would otherwise stand as the run's end until the resumed run has caught up.
    """
    train: dict[int, dict] = {}
    evals: dict[str, dict[int, dict]] = {}
    last_train_step = -1
    for line in lines:
        kind, step = line["kind"], line["step"]
        if kind == "train":
            if step <= last_train_step:
                for series in (train, *evals.values()):
                    for lost in [s for s in series if s > step]:
                        del series[lost]
            last_train_step = step
            train[step] = line
        elif kind == "eval":
            evals.setdefault(line.get("task", "all"), {})[step] = line
    kept = {task: _ascending(series) for task, series in evals.items() if series}
    return _ascending(train), kept


def _ascending(lines: dict[int, dict]) -> list[dict]:
    return [lines[step] for step in sorted(lines)]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else float("nan")


def _series(lines: list[dict]) -> Series:
    names = {name: None for line in lines for name, value in line.items() if _is_number(value)}
    columns = {name: np.array([_number(line.get(name)) for line in lines]) for name in names}
    return Series(
        step=np.array([line["step"] for line in lines], int),
        seconds=columns.get("seconds", np.full(len(lines), np.nan)),
        values=columns,
    )


def _router_layers(lines: list[dict]) -> Iterable[RouterLayer]:
    routed = [line for line in lines if line.get("router")]
    if not routed:
        return
    first = routed[0]["router"]
    for stack in ("encoder", "decoder"):
        for i, layer in enumerate(first.get(stack, {}).get("layers", ())):
            stats = [line["router"][stack] for line in routed]
            yield RouterLayer(
                stack=stack,
                layer=layer,
                step=np.array([line["step"] for line in routed], int),
                load=np.array([s["load"][i] for s in stats], float),
                dropped=np.array([s["dropped"][i] for s in stats], float),
                entropy=np.array([s["entropy"][i] for s in stats], float),
            )
