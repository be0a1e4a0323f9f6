"""From a registered task or mixture to packed batches of numpy arrays."""

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import seqio

from switch_jax.data.packing import Batch, Example, empty_batch, has_tokens, rows, write_row
from switch_jax.data.position import Position, StreamPosition
from switch_jax.data.preprocessing import alike, one_pass
from switch_jax.data.registry import mixing_rates, tasks_of, tasks_with_split
from switch_jax.data.sources import check_there, elements, no_example, open_source, source_of
from switch_jax.data.span_corruption import check_lengths
from switch_jax.data.streams import Stream, TaskExamples
from switch_jax.data.vocabularies import identity, loaded, with_vocabulary
from switch_jax.errors import FieldError, UserError
from switch_jax.fields import SEED, Range, check_fields, shown

# Evaluation masks the same spans whatever the seed of the run, so that runs can be compared.
EVAL_SEED = 0
MOST_TOKENS = 2**16  # of a row's inputs, and of its targets
_MOST_STREAMS = 4096
# Tasks that `check_readable` has looked at.
_READ: set[tuple] = set()


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
      num_streams: K, independent streams that make up each batch, B / K rows each: most hosts that
        can share the reading. Another number is another order of the data, so that a run keeps its.
      use_cached: read what seqio's cache script wrote, not the source.
      vocabulary: for all features in place of the task's own: 't5', 'mt5', 'byte' or the path of a
        SentencePiece model; None = the task's own.
    """

    mixture_or_task_name: str
    task_feature_lengths: Mapping[str, int]
    split: str = "train"
    pack: bool = True
    shuffle: bool = True
    seed: int = 0
    num_streams: int = 1
    use_cached: bool = False
    vocabulary: str | None = None

    def __post_init__(self) -> None:
        """Raises FieldError on values of another type, and on numbers that make no sense."""
        check_fields(self, seed=SEED, num_streams=Range(1, _MOST_STREAMS))
        for feature, tokens in self.task_feature_lengths.items():
            if tokens > MOST_TOKENS:
                raise FieldError(
                    "task_feature_lengths",
                    f"= {shown(dict(self.task_feature_lengths))}: {feature} must be at most "
                    f"{MOST_TOKENS:,} tokens",
                )


class TrainBatches:
    """The global batches of a run, without end: the same whatever hosts and devices there are.

    A batch is a dictionary of encoder_tokens, encoder_segments int32 [B, L_inputs];
    decoder_input_tokens, decoder_target_tokens, decoder_segments int32 [B, L_targets];
    decoder_loss_weights float32 [B, L_targets]. Segments count the examples of a row from 1; 0 is
    padding. Stream i of K gives rows i B / K to (i + 1) B / K; a host reads the streams whose rows
    it needs, and the rows of the others stay padding.
    """

    def __init__(
        self,
        config: DataConfig,
        batch_size: int,
        position: Position | None = None,
        needed_rows: Sequence[int] | None = None,
    ) -> None:
        """Opens the streams.

        Args:
          config: what to read.
          batch_size: rows B of a batch.
          position: where an earlier iteration was; None = the beginning.
          needed_rows: numbers of the rows that are needed here; None = all.

        Raises:
          UserError: unknown name or split, data that are not there, lengths that do not fit the
            task, a batch that does not divide over the streams. Reading raises it for a file that
            cannot be read, and for a task of a mixture that gives no example.
        """
        check_data(config)
        check_streams(config, batch_size)
        check_readable(config)
        self._config, self._batch_size = config, batch_size
        self._rows = batch_size // config.num_streams
        needed = range(batch_size) if needed_rows is None else needed_rows
        here = sorted({row // self._rows for row in needed})
        found = tasks_to_read(config)
        tasks = [
            TaskExamples(
                task,
                config.task_feature_lengths,
                split=config.split,
                num_streams=config.num_streams,
                seed=config.seed,
                shuffle=config.shuffle,
                use_cached=config.use_cached,
            )
            for task in found
        ]
        rates = mixing_rates(config.mixture_or_task_name, found)
        start = position or Position(0, {})
        self._names = [task.name for task in found]
        self._batches = start.batches
        self._streams = {
            i: Stream(tasks, rates, i, config.seed, *start.stream(i, self._names)) for i in here
        }
        self._iterators = {
            i: stream.rows(config.task_feature_lengths, config.pack)
            for i, stream in self._streams.items()
        }
        self._threads = ThreadPoolExecutor(min(len(here), os.cpu_count() or 1), "stream")

    def __iter__(self) -> "TrainBatches":
        return self

    def __next__(self) -> tuple[Batch, Position]:
        """The next batch, and the position after it."""
        batch = empty_batch(self._batch_size, self._config.task_feature_lengths)

        def fill(stream: int) -> None:
            for row in range(stream * self._rows, (stream + 1) * self._rows):
                write_row(batch, row, next(self._iterators[stream]))

        list(self._threads.map(fill, self._iterators))
        self._batches += 1
        places = {
            i: StreamPosition(stream.draws, dict(zip(self._names, stream.cursors, strict=True)))
            for i, stream in self._streams.items()
        }
        return batch, Position(self._batches, places)


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
      Dictionaries as those of `TrainBatches`.

    Raises:
      UserError: as `TrainBatches` does.
    """
    if batch_size <= 0:
        raise UserError(f"batch size {batch_size} is not positive")
    config = replace(config, split=split)
    check_data(config)
    return _filled_up(_eval_rows(config), batch_size, num_batches, config)


def _filled_up(
    all_rows: Iterator[list[tuple[Example, None]]],
    batch_size: int,
    num_batches: int | None,
    config: DataConfig,
) -> Iterator[Batch]:
    for batch_number in itertools.count() if num_batches is None else range(num_batches):
        some = list(itertools.islice(all_rows, batch_size))
        batch = empty_batch(batch_size, config.task_feature_lengths)
        for number, row in enumerate(some):
            write_row(batch, number, [example for example, _ in row])
        if some:
            yield batch
        elif batch_number == 0:
            lengths = dict(config.task_feature_lengths)
            raise UserError(no_example(config.mixture_or_task_name, config.split, lengths))
        if len(some) < batch_size:
            return


def _eval_rows(config: DataConfig) -> Iterator[list[tuple[Example, None]]]:
    """The rows of one pass over each task, one after the other."""
    for task in tasks_to_read(config):
        examples = ((example, None) for example in in_order(task, config))
        yield from rows(examples, config.task_feature_lengths, config.pack)


def in_order(task: seqio.Task, config: DataConfig) -> Iterator[dict[str, Any]]:
    """The examples with tokens of one pass: not shuffled, masked alike whatever the run's seed.

    Nothing is opened before the first is asked for: a mixture may have a hundred tasks.

    Raises:
      UserError: see `sources.elements`.
    """
    split, cached = config.split, config.use_cached and task.supports_caching
    source = open_source(source_of(task, split, cached), split, seed=EVAL_SEED)
    dataset = one_pass(task, config.task_feature_lengths, cached, EVAL_SEED)(source)
    for example in elements(dataset, task, split, cached):
        if has_tokens(example, config.task_feature_lengths):
            yield example


def eval_tasks(config: DataConfig, split: str = "validation") -> list[str]:
    """Names of the tasks to evaluate one by one: those that have the split.

    Raises:
      UserError: none has it.
    """
    return [task.name for task in tasks_to_read(replace(config, split=split))]


def tasks_to_read(config: DataConfig) -> list[seqio.Task]:
    """The task, or those of the mixture that have the split, with the config's vocabulary.

    Raises:
      UserError: see `tasks_with_split` and `with_vocabulary`.
    """
    found = tasks_with_split(config.mixture_or_task_name, config.split, config.use_cached)
    return [with_vocabulary(task, config.vocabulary) for task in found]


def _tasks(config: DataConfig) -> list[seqio.Task]:
    """The task, or those of the mixture, with the config's vocabulary; looks at no data."""
    return [with_vocabulary(t, config.vocabulary) for t in tasks_of(config.mixture_or_task_name)]


def vocabularies(config: DataConfig) -> dict[str, seqio.Vocabulary]:
    """Those of 'inputs' and 'targets', the same in all tasks of a mixture; looks at no data.

    Raises:
      UserError: the file of a vocabulary cannot be read.
    """
    task = _tasks(config)[0]
    return {name: loaded(feature.vocabulary) for name, feature in task.output_features.items()}


def identities(config: DataConfig) -> dict[str, str]:
    """What tells the vocabularies of 'inputs' and 'targets' from others; looks at no data.

    Raises:
      UserError: the file of a vocabulary cannot be read.
    """
    return {name: identity(found) for name, found in vocabularies(config).items()}


def vocabulary_is_here(config: DataConfig) -> bool:
    """Whether no file of a vocabulary is in a bucket."""
    features = [feature for task in _tasks(config) for feature in task.output_features.values()]
    files = (getattr(f.vocabulary, "sentencepiece_model_file", "") for f in features)
    return not any("://" in str(file) for file in files)


def vocabulary_size(config: DataConfig) -> int:
    """Number of token ids that the features need, sentinels included.

    Raises:
      UserError: the file of a vocabulary cannot be read.
    """
    return max(
        loaded(feature.vocabulary).vocab_size
        for task in _tasks(config)
        for feature in task.output_features.values()
    )


def check_vocabulary(config: DataConfig, rows: int) -> None:
    """Raises UserError where ids of the vocabulary have no row in an embedding of so many."""
    ids = vocabulary_size(config)
    if ids > rows:
        raise UserError(
            f"the vocabulary of {config.mixture_or_task_name} has {ids} ids, but the model's "
            f"embedding has {rows} rows; set NUM_EMBEDDINGS to {-(-ids // 128) * 128} (the next "
            "multiple of 128)"
        )


def check_data(config: DataConfig) -> None:
    """Checks the configuration against the tasks that it names, which must have the split.

    Raises:
      UserError: what is wrong, with the numbers.
    """
    check_form(config)
    _check_tasks(tasks_to_read(config), config)


def check_config(config: DataConfig) -> None:
    """Checks the configuration against the tasks that it names, without a look at their data.

    Raises:
      UserError: what is wrong, with the numbers.
    """
    check_form(config)
    _check_tasks(_tasks(config), config)


def check_form(config: DataConfig) -> None:
    """Checks the configuration by itself, without the tasks that it names.

    Raises:
      UserError: what is wrong, with the numbers.
    """
    lengths = config.task_feature_lengths
    if set(lengths) != {"inputs", "targets"} or min(lengths.values()) < 1:
        raise UserError(
            f"task_feature_lengths is {dict(lengths)}: give 'inputs' and 'targets', each a "
            "positive number of tokens, for example {'inputs': 128, 'targets': 32}"
        )
    if config.use_cached and config.vocabulary is not None:
        raise UserError(
            f"VOCABULARY = {config.vocabulary!r} with USE_CACHED_TASKS = True: the ids in a cache "
            "are those of the vocabulary that it was made with; set one of them to None or False"
        )


def _check_tasks(tasks: Sequence[seqio.Task], config: DataConfig) -> None:
    for task in tasks:
        check_lengths(task, config.task_feature_lengths)
        if task.requires_caching and not config.use_cached:
            raise UserError(
                f"{task.name} can only be read from a cache: make one with `switch_jax tasks "
                "cache`, and set USE_CACHED_TASKS to True"
            )


def check_streams(config: DataConfig, batch_size: int) -> None:
    """Raises UserError where the batch does not divide over the streams."""
    if batch_size <= 0 or config.num_streams <= 0 or batch_size % config.num_streams:
        raise UserError(
            f"batch size {batch_size} does not divide over {config.num_streams} streams of data; "
            f"set DATA_STREAMS to a divisor of {batch_size}"
        )


def check_readable(config: DataConfig) -> None:
    """Looks for each task's files, and reads one example of those that are preprocessed alike.

    Raises:
      UserError: a file that is not there or cannot be read, no example at these lengths, or
        examples without inputs or targets.
    """
    lengths, split = config.task_feature_lengths, config.split
    tasks, kinds = tasks_to_read(config), set()
    vocabulary_size(config)  # a file that is not there is told better here than by the pipeline
    for task in tasks:
        options = (config.use_cached, config.vocabulary)
        read = (task.name, split, *sorted(lengths.items()), *options)
        if read in _READ:
            continue
        check_there(task, split, config.use_cached)
        if alike(task) not in kinds:
            _check_example(next(in_order(task, config), None), task, config)
            kinds.add(alike(task))
        _READ.add(read)


def _check_example(example: Example | None, task: seqio.Task, config: DataConfig) -> None:
    if example is None:
        raise UserError(no_example(task.name, config.split, dict(config.task_feature_lengths)))
    missing = config.task_feature_lengths.keys() - example.keys()
    if missing:
        raise UserError(
            f"the examples of {task.name} have {', '.join(sorted(example))}, but no "
            f"{' and no '.join(sorted(missing))}: an encoder-decoder needs both"
        )
