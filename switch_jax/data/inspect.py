"""Tasks and their examples as text, for people."""

from collections.abc import Mapping

import numpy as np
import seqio

from switch_jax.data.pipeline import DataConfig, check_data, check_readable
from switch_jax.data.registry import names, provider, tasks_of

_IDS_SHOWN = 12


def describe() -> str:
    """A table of the registered tasks and mixtures: name, kind, splits."""
    rows = [("name", "kind", "splits")]
    for name in names():
        kind = "mixture" if isinstance(provider(name), seqio.Mixture) else "task"
        rows.append((name, kind, ", ".join(sorted(set().union(*map(_splits, tasks_of(name)))))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _splits(task: seqio.Task) -> set[str]:
    # To ask a TFDS source for its splits is to fetch the data set's description.
    if isinstance(task.source, seqio.TfdsDataSource):
        return {"(in TFDS)"}
    return set(task.splits)


def show(name: str, lengths: Mapping[str, int], split: str, count: int) -> str:
    """The first `count` examples of a task or mixture as the model sees them before packing.

    Args:
      name: a registered task or mixture.
      lengths: tokens in the 'inputs' and the 'targets', EOS included.
      split: split to read.
      count: number of examples.

    Returns:
      For each example the number of tokens, the first and last ids, and the decoded text of inputs
      and targets, sentinels written <extra_id_0>, <extra_id_1>, ...

    Raises:
      UserError: unknown name or split, lengths that do not fit the task.
    """
    config = DataConfig(name, lengths, split=split)
    check_data(config)
    check_readable(config)
    found = provider(name)
    dataset = found.get_dataset(lengths, split=split, shuffle=False, seed=0, num_epochs=1)
    lines = []
    for number, example in enumerate(dataset.take(count).as_numpy_iterator(), start=1):
        lines.append(f"{name}, {split}, example {number}")
        for feature in ("inputs", "targets"):
            ids = example[feature]
            vocabulary = found.output_features[feature].vocabulary
            lines.append(f"  {feature}, {len(ids)} tokens: {_shorten(ids)}")
            lines.append(f"    {vocabulary.decode(ids.tolist())}")
    return "\n".join(lines) if lines else f"{name} has no example of its split {split!r}"


def _shorten(ids: np.ndarray) -> str:
    shown = [str(token) for token in ids]
    if len(shown) > _IDS_SHOWN:
        shown[_IDS_SHOWN // 2 : -_IDS_SHOWN // 2] = ["..."]
    return " ".join(shown)
