"""From a registered task or mixture to packed batches of numpy arrays."""

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import seqio
import tensorflow as tf

from switch_jax.data.registry import provider, tasks_with_split
from switch_jax.data.span_corruption import check_lengths
from switch_jax.errors import UserError

# Evaluation masks the same spans whatever the seed of the run, so that runs can be compared.
_EVAL_SEED = 0


@dataclass(frozen=True)
class DataConfig:
    """What to read and how to lay it out.

    Attributes:
      mixture_or_task_name: a registered seqio task or mixture.
      task_feature_lengths: tokens in a row, EOS included: {'inputs': ..., 'targets': ...}.
      split: split of the task that is trained on.
      pack: put several short examples into one row.
      shuffle: shuffle the training examples.
      seed: seed of the order, the mixing and the masked spans.
      use_cached: read what seqio's cache script wrote, not the source.
    """

    mixture_or_task_name: str
    task_feature_lengths: Mapping[str, int]
    split: str = "train"
    pack: bool = True
    shuffle: bool = True
    seed: int = 0
    use_cached: bool = False


Batch = dict[str, np.ndarray]


def train_batches(
    config: DataConfig,
    batch_size: int,
    start_batch: int = 0,
    shard_index: int = 0,
    num_shards: int = 1,
) -> Iterator[Batch]:
    """Batches without end, the same for the same arguments.

    Args:
      config: what to read.
      batch_size: rows B of the batch over all shards.
      start_batch: number of batches to leave out; the rest is what it would have been anyway.
      shard_index: which part of the data this host reads.
      num_shards: number of hosts; each gets batch_size / num_shards rows of its own.

    Returns:
      Dictionaries of encoder_tokens, encoder_segments int32 [B, L_inputs]; decoder_input_tokens,
      decoder_target_tokens, decoder_segments int32 [B, L_targets]; decoder_loss_weights float32
      [B, L_targets]. Segments count the examples of a row from 1; 0 is padding.

    Raises:
      UserError: unknown name or split, lengths that do not fit the task, no example at all.
    """
    if batch_size <= 0 or batch_size % num_shards:
        raise UserError(f"batch size {batch_size} is not a positive multiple of {num_shards} hosts")
    check_data(config)
    check_readable(config)
    dataset = _model_features(
        config,
        config.mixture_or_task_name,
        shuffle=config.shuffle,
        num_epochs=None,
        seed=config.seed,
        shard_info=seqio.ShardInfo(shard_index, num_shards) if num_shards > 1 else None,
    )
    rows = batch_size // num_shards
    batches = dataset.batch(rows, drop_remainder=True).skip(start_batch).prefetch(tf.data.AUTOTUNE)
    return (_to_batch(features) for features in batches.as_numpy_iterator())


def eval_batches(
    config: DataConfig, batch_size: int, num_batches: int | None = None, split: str = "validation"
) -> Iterator[Batch]:
    """One pass in a fixed order; the last batch is filled up with rows of zeros.

    The masked spans do not depend on `config.seed`. A mixture is read task by task.

    Args:
      config: what to read; its split and its shuffle are not used.
      batch_size: rows B of every batch.
      num_batches: stop after so many; None reads the whole split.
      split: split to read.

    Returns:
      Dictionaries as `train_batches` gives them.

    Raises:
      UserError: as `train_batches` does.
    """
    if batch_size <= 0:
        raise UserError(f"batch size {batch_size} is not positive")
    config = replace(config, split=split)
    check_data(config)
    tasks = [
        _model_features(config, name, shuffle=False, num_epochs=1, seed=_EVAL_SEED)
        for name in eval_tasks(config.mixture_or_task_name, split)
    ]
    dataset = functools.reduce(tf.data.Dataset.concatenate, tasks).batch(batch_size)
    batches = dataset.take(-1 if num_batches is None else num_batches).prefetch(tf.data.AUTOTUNE)
    return _filled_up(batches, batch_size, config)


def eval_tasks(name: str, split: str = "validation") -> list[str]:
    """Names of the tasks to evaluate one by one: those of `name` that have the split.

    Raises:
      UserError: none has it.
    """
    return [task.name for task in tasks_with_split(name, split)]


def vocabulary_size(name: str) -> int:
    """Number of token ids that the features of `name` need, sentinels included."""
    return max(f.vocabulary.vocab_size for f in provider(name).output_features.values())


def check_data(config: DataConfig) -> None:
    """Checks the configuration against the tasks it names, before anything is read.

    Raises:
      UserError: what is wrong, with the numbers.
    """
    lengths = config.task_feature_lengths
    if set(lengths) != {"inputs", "targets"} or any(length <= 0 for length in lengths.values()):
        raise UserError(
            f"task_feature_lengths is {dict(lengths)}: give 'inputs' and 'targets', each a "
            "positive number of tokens, for example {'inputs': 128, 'targets': 32}"
        )
    for task in tasks_with_split(config.mixture_or_task_name, config.split):
        check_lengths(task, lengths)
        if config.use_cached and task.supports_caching and not task.cache_dir:
            raise UserError(
                f"use_cached is true, but seqio finds no cache of {task.name}: make one "
                "with seqio_cache_tasks and give its folder to seqio.set_global_cache_dirs, or "
                "set use_cached to False"
            )


def check_readable(config: DataConfig) -> None:
    """Reads one example of each task: an endless pass over a task without any would never return.

    Raises:
      UserError: a file that is not there, or no example at these lengths.
    """
    for task in tasks_with_split(config.mixture_or_task_name, config.split):
        dataset = task.get_dataset(
            config.task_feature_lengths,
            split=config.split,
            use_cached=config.use_cached,
            shuffle=False,
            seed=config.seed,
        )
        try:
            example = next(dataset.take(1).as_numpy_iterator(), None)
        except tf.errors.OpError as error:
            reason = error.message.split("}}")[-1].split("[Op:")[0].strip()
            raise UserError(f"{task.name}, split {config.split!r}: {reason}") from error
        if example is None:
            raise UserError(_no_example(task.name, config))


def _no_example(name: str, config: DataConfig) -> str:
    return (
        f"{name} gives no example of its split {config.split!r} at task_feature_lengths "
        f"{dict(config.task_feature_lengths)}: the split is empty, or the task's preprocessors "
        "drop every example at these lengths; write smaller ones"
    )


def _model_features(config: DataConfig, name: str, **arguments) -> tf.data.Dataset:
    return seqio.get_dataset(
        name,
        task_feature_lengths=dict(config.task_feature_lengths),
        feature_converter=seqio.EncDecFeatureConverter(pack=config.pack),
        dataset_split=config.split,
        use_cached=config.use_cached,
        verbose=False,
        **arguments,
    )


def _to_batch(features: Batch) -> Batch:
    """seqio's model features under our names; without packing each row is one segment."""
    encoder, targets = features["encoder_input_tokens"], features["decoder_target_tokens"]
    return {
        "encoder_tokens": encoder,
        "encoder_segments": features.get("encoder_segment_ids", (encoder > 0).astype(np.int32)),
        "decoder_input_tokens": features["decoder_input_tokens"],
        "decoder_target_tokens": targets,
        "decoder_segments": features.get("decoder_segment_ids", (targets > 0).astype(np.int32)),
        "decoder_loss_weights": features["decoder_loss_weights"].astype(np.float32),
    }


def _filled_up(batches: tf.data.Dataset, batch_size: int, config: DataConfig) -> Iterator[Batch]:
    rows = 0
    for features in batches.as_numpy_iterator():
        batch = _to_batch(features)
        rows = len(batch["encoder_tokens"])
        missing = ((0, batch_size - rows), (0, 0))
        yield {key: np.pad(array, missing) for key, array in batch.items()}
    if not rows:
        raise UserError(_no_example(config.mixture_or_task_name, config))
