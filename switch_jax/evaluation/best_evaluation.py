"""The best evaluation so far, by BEST_METRIC."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from switch_jax.config import Config
from switch_jax.data.catalogue.configured_tasks import OpenedTasks
from switch_jax.evaluation.teacher_forced import ALL, CONTENT
from switch_jax.utils.errors import UserError
from switch_jax.utils.fields import Use, uses
from switch_jax.utils.units import beside_baseline, percent

GENERATED = "generated_"  # prefix of a task's own metrics, of generated text
_QUALITY = "neg_log_perplexity"
_NOTABLE_DROP = 0.02  # of the tokens: an evaluation that drops more says so
# Fields of the data on which no evaluation depends. A run keeps its vocabulary, whose file may
# move; the digests say whether a task or a cache has other examples.
_NOT_MEASURED = (
    "mixture_or_task_name", "split", "shuffle_train_examples", "random_seed", "data_streams",
    "vocabulary", "use_cached_tasks",
)  # fmt: skip
METRICS = (_QUALITY, "accuracy", f"{CONTENT}{_QUALITY}", f"{CONTENT}accuracy")

# Metrics by task; under "generated" the task's own, by name, see `DecodingEvaluation`.
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
        """How long there has been no better evaluation, for a message; `metric`: its name."""
        if self.value is None:
            return f"no number for {metric} in {self.since} evaluations"
        return f"no better {metric} than that of step {self.step} in {self.since} evaluations"

    def as_json(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        return dataclasses.asdict(self)


def measured(config: Config, files: Mapping[str, str] | None) -> dict[str, Any] | None:
    """What BEST_METRIC is measured on, as JSON: values on other things are not compared.

    `files` are digests of those of the validation sets; with None, no evaluations, it is None.
    """
    if files is None:
        return None
    run, model, data = config.run, config.model, config.data
    task = run.best_metric.rpartition("/")[0]
    sets = [task] if task in files else files  # otherwise the metric is over all of them
    names = [name for name, use in uses(type(model)) if use is not Use.TRAINING]
    if model.encoder_router_type == "experts_choose":  # see `ModelConfig.capacity_factors`
        names.append("train_expert_capacity_factor")
    return {
        "BEST_METRIC": run.best_metric,
        "EVAL_STEPS * BATCH_SIZE": run.eval_steps * run.batch_size,
        **{name.upper(): getattr(model, name) for name in names},
        **{k.upper(): v for k, v in dataclasses.asdict(data).items() if k not in _NOT_MEASURED},
        **{f"files of {name}": files[name] for name in sets},
    }


def check_metric(name: str, opened: OpenedTasks, infer_eval: bool) -> None:
    """Raises UserError where BEST_METRIC, `name`, is no metric of the validation sets `opened`.

    With `infer_eval` the tasks' own metrics are computed, whose names are not known yet.
    """
    task, _, metric = name.rpartition("/")
    tasks = [*opened.names, ALL]
    is_generated = metric.startswith(GENERATED)
    if is_generated and not infer_eval:
        raise UserError(
            f"best_metric = {name!r} is a metric of generated text, computed with INFER_EVAL = True"
        )
    if not (is_generated or metric in METRICS) or (task and task not in tasks):
        raise UserError(
            f"best_metric = {name!r}: write {' or '.join(METRICS)}, of one task as TASK/accuracy, "
            f"or with INFER_EVAL = True a metric of its own as TASK/{GENERATED}NAME; "
            f"tasks are {', '.join(tasks)}"
        )


def in_words(results: Results, best_metric: str) -> str:
    """For a message: the tasks' own metrics, quality, that of the best checkpoints, dropped tokens.

    All of them on all tasks. Where there are several, a line for the own metrics of each follows.
    """
    *tasks, (_, held_out) = results.items()
    parts = [f"held-out negative log perplexity {held_out[_QUALITY]:.4f}"]
    if best_metric != _QUALITY:
        value = metric_of(results, best_metric)
        of_tokens = GENERATED not in best_metric and best_metric.endswith("accuracy")
        text = f"{percent(value)} of the tokens" if of_tokens else f"{value:.4f}"
        parts.append(f"{best_metric} {text}")
    if held_out.get("dropped", 0.0) > _NOTABLE_DROP:
        parts.append(f"{held_out['dropped']:.1%} of the tokens dropped")
    by_task = [f"  {task}: {own}" for task, values in tasks for own in _own_metrics(values)]
    return "\n".join(["; ".join([*_own_metrics(held_out), ", ".join(parts)]), *by_task])


def _own_metrics(values: Mapping[str, Any]) -> list[str]:
    if "generated" not in values:
        return []
    return [beside_baseline(values["generated"], values.get("majority_baseline", {}))]


def metric_of(results: Results, name: str) -> float:
    """The value of BEST_METRIC, over all tasks if it names none; UserError: it was not computed."""
    task, _, metric = name.rpartition("/")
    values = results[task] if task in results else list(results.values())[-1]
    if metric in METRICS:
        return values[metric]
    generated = values.get("generated", {})
    if metric.removeprefix(GENERATED) not in generated:
        known = [
            f"{task}/{GENERATED}{own}"
            for task, values in results.items()
            for own in values.get("generated", ())
        ]
        raise UserError(f"best_metric = {name!r}: of generated text there are {', '.join(known)}")
    return generated[metric.removeprefix(GENERATED)]
