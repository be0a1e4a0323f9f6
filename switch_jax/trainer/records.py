"""The train records: the metrics of the steps since the last record, joined."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from switch_jax.config import Config
from switch_jax.hardware.tpus import device_peak_flops, devices_per_chip
from switch_jax.metrics import RECORDED_STATISTICS, Join
from switch_jax.moe import RouterStatistics
from switch_jax.monitoring import Goodput, InputBound, MetricWriter, Progress, memory_in_use
from switch_jax.optim.schedules import learning_rate_schedule
from switch_jax.run_folder import RecordKind, training_seconds
from switch_jax.storage import repeated_requests
from switch_jax.train_step.flops import step_flops
from switch_jax.train_step.step import Metrics

# The metrics that a record has under the same names, and how those of its steps become one.
_RECORDED: Mapping[str, Join] = dict.fromkeys(
    (
        "loss", "cross_entropy", "soft_cross_entropy", "z_loss", "accuracy", "load_balance_loss",
        "router_z_loss", "gradient_norm", "parameter_norm",
    ),
    Join.MEAN,
)  # fmt: skip


class Records:
    """Collects the metrics of steps, and writes what they are together."""

    def __init__(
        self, config: Config, writer: MetricWriter, progress: Progress, goodput: Goodput
    ) -> None:
        self._writer, self._progress, self._goodput = writer, progress, goodput
        self._model = config.model
        self._schedule = learning_rate_schedule(config)
        self._input_bound = InputBound()
        kind, devices = jax.devices()[0].device_kind, jax.device_count()
        flops = step_flops(config)
        peak = device_peak_flops(kind)
        self._peak_seconds = flops / (peak * devices) if peak else None
        self._chips = max(1, devices // devices_per_chip(kind))
        self._step = 0
        self._metrics: list[Metrics] = []
        self._before = goodput.seconds()

    def add(self, step: int, metrics: Metrics) -> None:
        """Adds the metrics of the next step; they may still be on the devices."""
        self._step = step
        self._metrics.append(metrics)

    def flush(self, batches: int) -> None:
        """Writes a record, if steps were added; `batches` is the last one's batch, from 1."""
        if not self._metrics:
            return
        step, window = self._step, jax.device_get(self._metrics)
        self._metrics = []
        now = self._goodput.seconds()
        spent = {kind: now[kind] - self._before[kind] for kind in now}
        self._before = now
        elapsed = training_seconds(spent)
        good = [m for m in window if not m.skipped] or window
        tokens_per_second = sum(float(m.tokens) for m in window) / elapsed
        values: dict[str, Any] = {
            name: join.of([getattr(m, name) for m in good]).tolist()
            for name, join in _RECORDED.items()
            if getattr(good[0], name) is not None
        }
        values["neg_log_perplexity"] = -values["cross_entropy"]
        values["learning_rate"] = float(self._schedule(int(window[-1].updates) - 1))
        values["tokens_per_second"] = round(tokens_per_second, 1)
        values["tokens_per_second_per_chip"] = round(tokens_per_second / self._chips, 1)
        if self._peak_seconds:
            values["model_flops_utilisation"] = self._peak_seconds * len(window) / elapsed
        values["skipped_steps"] = int(sum(m.skipped for m in window))
        values["batches"] = batches
        values["batch_hashes"] = " ".join(f"{int(m.batch_hash):08x}" for m in window)
        values["norms"] = {
            "gradient": _means([m.gradient_norms for m in good]),
            "parameter": _means([m.parameter_norms for m in good]),
            "update": _means([m.update_norms for m in good]),
        }
        values["goodput"] = round(self._goodput.fraction(), 4)
        values["spent"] = {kind: round(seconds, 3) for kind, seconds in now.items()}
        values["memory_gib"] = {k: round(v, 3) for k, v in memory_in_use().items()}
        if repeated := repeated_requests():
            values["repeated_requests"] = repeated
        if self._model.num_experts:
            values["router"] = {
                stack.name: _router([m.routers[stack.name] for m in good], stack.routers)
                for stack in self._model.stacks
                if stack.routers
            }
        self._writer.write(RecordKind.TRAIN, step, training_seconds(now), values)
        self._progress.show(step, values["loss"], tokens_per_second, elapsed / len(window))
        if warning := self._input_bound.warning(spent["data"], elapsed):
            self._progress.say(warning)


def _means(norms: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
    """The means over steps of the norms by group."""
    return {group: Join.MEAN.of([n[group] for n in norms]).tolist() for group in norms[0]}


def _router(steps: list[RouterStatistics], places: list[tuple[int, str]]) -> dict[str, Any]:
    """The routers of a stack; an expert is dead if no token of these steps chose it."""
    found = {
        name: statistic.join.of([getattr(step, name) for step in steps]).tolist()
        for name, statistic in RECORDED_STATISTICS.items()
        if getattr(steps[0], name) is not None
    }
    load = np.array(found["load"])  # [N, E]
    return {
        "layers": [layer for layer, _ in places],
        "sublayers": [sublayer for _, sublayer in places],
        **found,
        "max_over_mean": (load.max(1) / load.mean(1)).tolist(),
        "dead_experts": (load == 0).sum(1).tolist(),
    }
