"""From examples to the rows of a batch: greedy packing, and the arrays that the model takes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

Example = Mapping[str, np.ndarray]
Batch = dict[str, np.ndarray]
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


def empty_batch(batch_size: int, lengths: Mapping[str, int]) -> Batch:
    """A batch of padding: see `pipeline.TrainBatches` for its arrays."""
    inputs, targets = ((batch_size, lengths[name]) for name in ("inputs", "targets"))
    return {
        "encoder_tokens": np.zeros(inputs, np.int32),
        "encoder_segments": np.zeros(inputs, np.int32),
        "decoder_input_tokens": np.zeros(targets, np.int32),
        "decoder_target_tokens": np.zeros(targets, np.int32),
        "decoder_segments": np.zeros(targets, np.int32),
        "decoder_loss_weights": np.zeros(targets, np.float32),
    }


def write_row(batch: Batch, number: int, examples: Sequence[Example]) -> None:
    """Writes examples side by side into a row of zeros; the decoder input of each begins with 0."""
    places = (
        ("inputs", "encoder_tokens", "encoder_segments"),
        ("targets", "decoder_target_tokens", "decoder_segments"),
    )
    for feature, tokens_name, segments_name in places:
        tokens, segments = batch[tokens_name][number], batch[segments_name][number]
        start = 0
        for segment, example in enumerate(examples, start=1):
            ids = example[feature][: len(tokens) - start]
            stop = start + len(ids)
            tokens[start:stop], segments[start:stop] = ids, segment
            if feature == "targets":
                batch["decoder_input_tokens"][number, start + 1 : stop] = ids[:-1]
            start = stop
    batch["decoder_loss_weights"][number] = batch["decoder_segments"][number] > 0
