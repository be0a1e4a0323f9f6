"""The arrays of a batch, and which examples share a row of it; loads no TensorFlow."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

Example = Mapping[str, np.ndarray]
Batch = dict[str, np.ndarray]
Tag = TypeVar("Tag")


def empty_batch(batch_size: int, lengths: Mapping[str, int]) -> Batch:
    """A batch of padding; `train_batches.TrainBatches` describes its arrays."""
    inputs, targets = ((batch_size, lengths[name]) for name in ("inputs", "targets"))
    return {
        "encoder_input_tokens": np.zeros(inputs, np.int32),
        "encoder_segment_ids": np.zeros(inputs, np.int32),
        "decoder_input_tokens": np.zeros(targets, np.int32),
        "decoder_target_tokens": np.zeros(targets, np.int32),
        "decoder_segment_ids": np.zeros(targets, np.int32),
        "decoder_loss_weights": np.zeros(targets, np.float32),
    }


def write_row(batch: Batch, row: int, examples: Sequence[Example]) -> None:
    """Writes examples side by side into a row of `batch` that is all padding.

    The decoder input of each example is its targets shifted right, with 0 as its first token.
    Each has 'inputs' and 'targets', int32 [L]; what does not fit is cut off.
    """
    features = (
        ("inputs", "encoder_input_tokens", "encoder_segment_ids"),
        ("targets", "decoder_target_tokens", "decoder_segment_ids"),
    )
    for feature, tokens_name, segments_name in features:
        tokens, segments = batch[tokens_name][row], batch[segments_name][row]
        start = 0
        for segment, example in enumerate(examples, start=1):
            ids = example[feature][: len(tokens) - start]
            stop = start + len(ids)
            tokens[start:stop], segments[start:stop] = ids, segment
            if feature == "targets":
                batch["decoder_input_tokens"][row, start + 1 : stop] = ids[:-1]
            start = stop
    batch["decoder_loss_weights"][row] = batch["decoder_segment_ids"][row] > 0


def pack_rows(
    examples: Iterable[tuple[Example, Tag]], lengths: Mapping[str, int], pack: bool
) -> Iterator[list[tuple[Example, Tag]]]:
    """Groups examples into rows in which they fit, in their given order; without `pack` one a row.

    `examples` are pairs of an example, with a token in 'inputs' or 'targets', and what stays with
    it. `lengths` are tokens in a row, by feature; longer examples count as cut off. A row ends
    before the first example that does not fit, so at most one is read ahead.
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
