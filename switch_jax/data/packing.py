"""Greedy packing: which examples share a row of a batch."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from switch_jax.data.batch import Example

Tag = TypeVar("Tag")


def rows(
    examples: Iterable[tuple[Example, Tag]], lengths: Mapping[str, int], pack: bool
) -> Iterator[list[tuple[Example, Tag]]]:
    """Groups examples, in their order, into rows that they fit in.

    A row ends before the first example that does not fit, so nothing is looked at beyond that one.

    Args:
      examples: each with 'inputs' and 'targets', one of which has tokens, and anything that belongs
        to it.
      lengths: tokens of a row, by feature; longer examples are cut off.
      pack: put as many examples as fit into one row, and not one.
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


def has_tokens(example: Example, lengths: Mapping[str, int]) -> bool:
    """Whether an example has any; one without would add nothing to a row, and be packed for ever.

    seqio's packing loses such examples too.
    """
    return any(len(example.get(name, ())) for name in lengths)
