"""Examples of tasks as text, for `switch_jax tasks NAME`."""

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.checks import check_examples, open_tasks
from switch_jax.data.catalogue.configured_tasks import OpenedTasks, all_tasks, ordered_examples
from switch_jax.data.catalogue.lost_text import lost_text
from switch_jax.data.catalogue.registry import mixing_rates

_MAX_IDS = 12  # of a feature that are shown


def first_examples(config: DataConfig, count: int) -> str:
    """The first examples of a task or mixture as the model sees them, before packing or shuffling.

    Each is shown by its number of tokens, first and last ids, and text; `lost_text` follows. Raises
    what `open_tasks` and `check_examples` raise.
    """
    known = {name for task in all_tasks(config) for name in task.output_features}
    lengths = {name: n for name, n in config.task_feature_lengths.items() if name in known}
    opened = open_tasks(dataclasses.replace(config, task_feature_lengths=lengths))
    check_examples(opened, ())
    lines = []
    for number, example in enumerate(itertools.islice(_mixed(opened), count), 1):
        lines.append(f"{config.mixture_or_task_name}, {config.split}, example {number}")
        for feature in (name for name in ("inputs", "targets") if name in example):
            ids = example[feature]
            vocabulary = opened.tasks[0].output_features[feature].vocabulary
            lines.append(f"  {feature}, {len(ids)} tokens: {_shortened(ids)}")
            lines.append(f"    {vocabulary.decode(ids.tolist())}")
    return "\n".join([*lines, *lost_text(opened)])


def _mixed(opened: OpenedTasks) -> Iterator[Mapping[str, Any]]:
    """Yields examples of tasks chosen at their rates, until all tasks are exhausted."""
    rates = np.asarray(mixing_rates(opened.config.mixture_or_task_name, opened.tasks))
    readers = [ordered_examples(task, opened.config, ()) for task in opened]
    rng = np.random.default_rng(0)
    while rates.any():
        task = rng.choice(len(readers), p=rates / rates.sum())
        example = next(readers[task], None)
        if example is None:
            rates[task] = 0
        else:
            yield example


def _shortened(ids: np.ndarray) -> str:
    shown = [str(token) for token in ids]
    if len(shown) > _MAX_IDS:
        shown[_MAX_IDS // 2 : -_MAX_IDS // 2] = ["..."]
    return " ".join(shown)
