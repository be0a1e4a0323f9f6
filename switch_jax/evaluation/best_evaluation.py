"""The best evaluation so far, by BEST_METRIC."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from switch_jax.config import Config
from switch_jax.evaluation.teacher_forced import ALL, CONTENT
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import Use, uses
from switch_jax.utils.units import beside_baseline, counted, percent

GENERATED = "generated_"  # prefix of the metrics that a task computes of generated text
_QUALITY = "neg_log_perplexity"
_NOTABLE_DROP = 0.02  # of the tokens: an evaluation that drops more says so
# Fields of the data on which no evaluation depends. A run keeps its vocabulary, whose file may
# move, as the folder of its data; the digests say whether a task or a cache has other examples.
_NOT_MEASURED = (
    "mixture_or_task_name", "split", "shuffle_train_examples", "random_seed", "data_streams",
    "vocabulary", "use_cached_tasks", "c4_json_dir",
)  # fmt: skip
METRICS = (_QUALITY, "accuracy", f"{CONTENT}{_QUALITY}", f"{CONTENT}accuracy")

# Metrics by task; under "generated" those of generated text by name, see `DecodingEvaluation`.
Results = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass
class Best:
    """The best evaluation so far, by a metric that is better when it is higher.

    `value` is None before the first evaluation whose metric is a number. `since` counts the
    evaluations since the best one, NaN included; all, if there is no best. `of` is from `measured`.
    """

    value: float | None = None
    step: int = 0
    since: int = 0
    of: dict[str, Any] | None = None

    def update(self, step: int, value: float) -> None:
        """Counts an evaluation. NaN is never the best."""
        if value > (-math.inf if self.value is None else self.value):
            self.value, self.step, self.since = value, step, 0
        else:
            self.since += 1

    def in_words(self, metric: str) -> str:
        """Says how long there has been no better evaluation by `metric`, for a message."""
        if self.value is None:
            return f"no number for {metric} in {self.since} evaluations"
        return f"no better {metric} than that of step {self.step} in {self.since} evaluations"

    def as_json(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return dataclasses.asdict(self)


def measured(config: Config, files: Mapping[str, str] | None) -> dict[str, Any] | None:
    """Returns, as JSON, what BEST_METRIC is measured on; only values on the same are compared.

    `files` are digests of those of the validation sets; with None, no evaluations, it is None.
    """
    if files is None:
        return None
    run, model, data = config.run, config.model, config.data
    task = run.best_metric.rpartition("/")[0]
    sets = [task] if task in files else files  # otherwise the metric is over all of them
    names = [name for name, use in uses(type(model)) if use is not Use.TRAINING]
    if any(stack.router_type == "experts_choose" for stack in model.stacks):  # see `StackConfig`
        names.append("train_expert_capacity_factor")
    return {
        "BEST_METRIC": run.best_metric,
        "EVAL_STEPS * BATCH_SIZE": run.eval_steps * run.batch_size,
        **{name.upper(): getattr(model, name) for name in names},
        **{k.upper(): v for k, v in dataclasses.asdict(data).items() if k not in _NOT_MEASURED},
        **{f"files of {name}": files[name] for name in sets},
    }


def check_metric(
    name: str, tasks: Sequence[str], generated: Mapping[str, Sequence[str]] | None
) -> None:
    """Raises UserError where BEST_METRIC, `name`, is no metric of the validation sets `tasks`.

    `generated` are the names of each task's metrics of generated text, which
    `task_metrics.check_metrics` returns; None: they are not computed.
    """
    if name.rpartition("/")[2].startswith(GENERATED):
        if generated is None:
            raise UserError(
                f"BEST_METRIC = {name!r} is a metric of generated text, computed with INFER_EVAL = "
                "True"
            )
        if not all(generated.values()):
            return  # the first evaluation finds out
    given = dict.fromkeys(METRICS, math.nan)
    results: dict[str, dict[str, Any]] = {task: {**given} for task in tasks}
    for task, names in (generated or {}).items():
        results[task]["generated"] = dict.fromkeys(names, math.nan)
    if len(tasks) > 1:
        average = {"generated": {"average": math.nan}}
        results[ALL] = {**given, **average} if generated else given
    metric_of(results, name)


def in_words(results: Results, best_metric: str) -> str:
    """Says the metrics of generated text, quality, BEST_METRIC, and dropped tokens, on all tasks.

    Where there are several tasks, a line for each with its metrics of generated text follows.
    """
    *tasks, (_, held_out) = results.items()
    parts = [f"held-out negative log perplexity {held_out[_QUALITY]:.4f} nats a token"]
    task, _, metric = best_metric.rpartition("/")
    is_said = metric == _QUALITY and results.get(task, held_out) is held_out
    if metric in METRICS and not is_said:
        value = metric_of(results, best_metric)
        is_share = metric.endswith("accuracy")
        text = f"{percent(value)} of the tokens" if is_share else f"{value:.4f} nats a token"
        parts.append(f"{best_metric} {text}")
    if held_out.get("dropped", 0.0) > _NOTABLE_DROP:
        parts.append(f"{percent(held_out['dropped'])} of the tokens dropped")
    quality = f"{', '.join(parts)} ({counted(round(held_out['tokens']), 'target token')})"
    by_task = [f"  {task}: {line}" for task, values in tasks for line in _of_generated(values)]
    return "\n".join(["; ".join([*_of_generated(held_out), quality]), *by_task])


def _of_generated(values: Mapping[str, Any]) -> list[str]:
    if "generated" not in values:
        return []
    metrics = beside_baseline(values["generated"], values.get("majority_baseline", {}))
    return [f"generated text of {counted(values['examples'], 'example')}: {metrics}"]


def metric_of(results: Results, name: str) -> float:
    """The value of BEST_METRIC, over all tasks if it names none; UserError: it was not computed."""
    task, _, metric = name.rpartition("/")
    *_, on_all = results.values()
    values = results.get(task, on_all if task in ("", ALL) else {})
    found = {m: values[m] for m in METRICS if m in values} | _generated(values)
    if metric not in found:
        known = [f"{task}/{metric}" for task, v in results.items() for metric in _generated(v)]
        others = "" if known else f", or with INFER_EVAL = True TASK/{GENERATED}NAME"
        raise UserError(
            f"BEST_METRIC = {name!r}: write {' or '.join([*METRICS, *known])}, of one task as "
            f"TASK/accuracy{others}; tasks are {', '.join({**results, ALL: None})}"
        )
    return found[metric]


def _generated(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns the metrics of generated text by their names in BEST_METRIC."""
    return {f"{GENERATED}{name}": x for name, x in values.get("generated", {}).items()}
