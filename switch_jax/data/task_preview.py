"""Examples of tasks as text, for `switch_jax tasks NAME`."""

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from switch_jax.config import DataConfig
from switch_jax.data.batch import Example
from switch_jax.data.checks import check_examples, cut_examples, open_tasks
from switch_jax.data.configured_tasks import in_order
from switch_jax.data.registry import mixing_rates
from switch_jax.tensorflow_setup import seqio

_MAX_IDS = 12  # of a feature that are shown
_FEATURES = ("inputs", "targets")


def first_examples(config: DataConfig, count: int) -> str:
    """The first examples of a task or mixture as the model sees them, before packing.

    Args:
      config: what to read; it is not shuffled.
      count: number of examples.

    Returns:
      For each example the number of tokens, the first and last ids, and the decoded text of inputs
      and targets, with sentinels as <extra_id_0>, <extra_id_1>, ...; then `cut_examples`.

    Raises:
      UserError: unknown name or split, missing data, or lengths that do not fit the task.
    """
    opened = open_tasks(config)
    check_examples(opened)
    name, split, tasks = config.mixture_or_task_name, config.split, opened.tasks
    rates = mixing_rates(name, tasks)
    lines = []
    for number, example in enumerate(itertools.islice(_mixed(tasks, rates, config), count), 1):
        lines.append(f"{name}, {split}, example {number}")
        for feature in _FEATURES:
            ids = example[feature]
            vocabulary = tasks[0].output_features[feature].vocabulary
            lines.append(f"  {feature}, {len(ids)} tokens: {_shortened(ids)}")
            lines.append(f"    {vocabulary.decode(ids.tolist())}")
    return "\n".join([*lines, *cut_examples(opened)])


def _mixed(
    tasks: Sequence[seqio.Task], rates: Sequence[float], config: DataConfig
) -> Iterator[Example]:
    """Examples of tasks that are drawn at their rates, until all tasks are exhausted."""
    rng, remaining_rates = np.random.default_rng(0), np.asarray(rates)
    readers = [in_order(task, config) for task in tasks]
    while remaining_rates.any():
        task = rng.choice(len(readers), p=remaining_rates / remaining_rates.sum())
        example = next(readers[task], None)
        if example is None:
            remaining_rates[task] = 0
        else:
            yield example


def _shortened(ids: np.ndarray) -> str:
    shown = [str(token) for token in ids]
    if len(shown) > _MAX_IDS:
        shown[_MAX_IDS // 2 : -_MAX_IDS // 2] = ["..."]
    return " ".join(shown)
