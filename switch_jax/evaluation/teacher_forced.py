"""Evaluation by given targets: each token given the correct ones before it (teacher forcing)."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from switch_jax.config import Config
from switch_jax.data.catalogue.configured_tasks import OpenedTasks
from switch_jax.data.catalogue.vocabularies import content_tokens
from switch_jax.data.eval_batches import eval_batches
from switch_jax.data.packing import Batch
from switch_jax.partitioning.compiler_options import compiler_options
from switch_jax.partitioning.mesh import replicated
from switch_jax.partitioning.placing import put_batch
from switch_jax.train_step.cross_entropy import TokenSums
from switch_jax.train_step.eval_step import EvalSums, make_eval_step
from switch_jax.train_step.lowering import abstract_batch

ALL = "all"
CONTENT = "content_"  # prefix of what is measured without EOS and sentinels


class TeacherForcedEvaluation:
    """Scores a model on the given targets of a task, or of each task of a mixture."""

    def __init__(
        self,
        config: Config,
        mesh: Mesh,
        parameters: Any,
        opened: OpenedTasks,
        num_batches: int | None = None,
    ) -> None:
        """Reads the batches, `num_batches` of each task, and compiles; raises as `eval_batches`.

        Of `config` the data are not read. `parameters` are `ShapeDtypeStruct`s on the mesh.
        """
        self._mesh = mesh
        self._batches = _read(opened, config, num_batches)
        is_content = content_tokens(opened.tasks[0].output_features["targets"].vocabulary)
        self._step = lower_eval_step(config, mesh, parameters, is_content).compile()

    def __call__(self, parameters: Any) -> dict[str, dict[str, float]]:
        """Metrics by task, and with several tasks also "all", their mean over all tokens."""
        by_task = {}
        for task, batches in self._batches.items():
            on_devices = [self._step(parameters, put_batch(b, self._mesh)) for b in batches]
            by_task[task] = summed(jax.device_get(on_devices))
        if len(by_task) > 1:
            by_task[ALL] = summed(list(by_task.values()))
        return {task: _metrics(sums) for task, sums in by_task.items()}


def _read(opened: OpenedTasks, config: Config, num_batches: int | None) -> dict[str, list[Batch]]:
    """The batches of each task. Every host reads all of them: they are small."""

    def read(task: str) -> list[Batch]:
        stacks, batch_size = config.model.stacks, config.run.batch_size
        return list(eval_batches(opened.only(task), stacks, batch_size, num_batches))

    # Opening a set takes about as long as reading it, and a mixture may have 100 of them.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), "validation") as threads:
        return dict(zip(opened.names, threads.map(read, opened.names), strict=True))


def lower_eval_step(
    config: Config, mesh: Mesh, parameters: Any, is_content: np.ndarray
) -> jax.stages.Lowered:
    """The step of an evaluation, ready to be compiled; arguments as there."""
    step = make_eval_step(config.model, is_content, config.run.num_microbatches)
    jitted = jax.jit(
        step,
        out_shardings=replicated(mesh),  # every host reads the sums
        compiler_options=compiler_options(config.mesh.fully_sharded_weights),
    )
    return jitted.lower(parameters, abstract_batch(config, mesh))


def summed(parts: Sequence[EvalSums]) -> EvalSums:
    """The sum, in double precision: in float32, 2^24 tokens and one more are 2^24."""
    return jax.tree.map(lambda *values: sum(map(float, values)), *parts)


def _metrics(sums: EvalSums) -> dict[str, float]:
    content = _per_token(sums.content)
    metrics = _per_token(sums.targets) | {f"{CONTENT}{name}": x for name, x in content.items()}
    if sums.routed is not None:
        metrics["dropped"] = sums.routed.dropped / max(sums.routed.tokens, 1.0)
    return metrics


def _per_token(sums: TokenSums) -> dict[str, float]:
    tokens = max(sums.tokens, 1.0)
    cross_entropy = sums.cross_entropy / tokens
    return {
        "neg_log_perplexity": -cross_entropy,
        "cross_entropy": cross_entropy,
        "accuracy": sums.correct / tokens,
        "tokens": sums.tokens,
    }
