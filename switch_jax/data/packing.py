"""Greedy packing: which examples share a row of a batch; importing this loads no TensorFlow."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from switch_jax.data.batch import Example

Tag = TypeVar("Tag")


def pack_rows(
    examples: Iterable[tuple[Example, Tag]], lengths: Mapping[str, int], pack: bool
) -> Iterator[list[tuple[Example, Tag]]]:
    """Groups examples into rows in which they fit, in their given order.

    A row ends before the first example that does not fit, so at most one example is read ahead.

    Args:
      examples: pairs of an example, which must have a token in 'inputs' or 'targets', and a value
        that stays with it.
      lengths: tokens in a row, by feature; longer examples count as cut off to this length.
      pack: False puts a single example into each row.
    """
    row: list[tuple[Example, Tag]] = []
    used = dict.fromkeys(lengths, 0)
    for example, tag in examples:
        sizes = {name: min(len(example[name]), length) for name, length in lengths.items()}
        full = any(used[name] + sizes[name] > length for name, length in lengths.items())
        if row and (full or not pack):
            yield row
            row, used = [], dict.fromkeys(lengths, 0)
        row.append((example, tag))
        used = {name: used[name] + size for name, size in sizes.items()}
    if row:
        yield row


def has_inputs(example: Example) -> bool:
    """Whether the inputs have a token; of an example that has no 'inputs' `checks` tells.

    Others must be left out before packing: their targets would have nothing to attend to in the
    encoder, and where these are empty, too, a row of them would never be full.
    """
    return "inputs" not in example or len(example["inputs"]) > 0
