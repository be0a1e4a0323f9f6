"""The arrays of a batch, which the model takes; importing this loads no TensorFlow."""

from collections.abc import Mapping, Sequence

import numpy as np

Example = Mapping[str, np.ndarray]
Batch = dict[str, np.ndarray]


def empty_batch(batch_size: int, lengths: Mapping[str, int]) -> Batch:
    """A batch of padding: see `train_batches.TrainBatches` for its arrays."""
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
