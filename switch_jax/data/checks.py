"""Whether a config fits the tasks that it names, and whether their data can be read."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from switch_jax.config import Config, DataConfig
from switch_jax.data import seqio_internals
from switch_jax.data.batch import Example
from switch_jax.data.configured_tasks import (
    OpenedTasks,
    all_tasks,
    identities,
    in_order,
    ordered_dataset,
    tasks_to_read,
    vocabulary_size,
)
from switch_jax.data.preprocessing import preprocessing_key, tokenize_index
from switch_jax.data.reading import no_examples, read_examples
from switch_jax.data.registry import NoSplitError
from switch_jax.data.sources import check_files_exist
from switch_jax.data.span_lengths import check_lengths
from switch_jax.errors import UserError, storage_error
from switch_jax.run_folder import RunFolder, read_run_json
from switch_jax.tensorflow_setup import seqio
from switch_jax.units import counted

WITHOUT_EVALUATION = "to train without evaluation set EVAL_PERIOD to None"
_EXAMPLES_MEASURED = 200  # of a task


def check_vocabulary(config: Config) -> None:
    """Raises UserError if the vocabulary has more ids than the embedding has rows."""
    ids, rows, split = vocabulary_size(config.data), config.model.num_embeddings, config.mesh.model
    if ids > rows:
        multiple = f", a multiple of MESH_MODEL = {split}" if split > 1 else ""
        raise UserError(
            f"the vocabulary of {config.data.mixture_or_task_name} has {ids} ids, but the model's "
            f"embedding has {rows} rows; set NUM_EMBEDDINGS to {-(-ids // split) * split} or more"
            f"{multiple}"
        )


def small_vocabulary(config: Config) -> list[str]:
    """A warning where the vocabulary fills less than half of the embedding; else nothing."""
    ids, rows = vocabulary_size(config.data), config.model.num_embeddings
    if 2 * ids >= rows:
        return []
    return [
        f"warning: NUM_EMBEDDINGS = {rows}, and the vocabulary of "
        f"{config.data.mixture_or_task_name} has {ids} ids: the other {rows - ids} rows of the "
        "embedding are never used"
    ]


def check_splits(config: Config) -> None:
    """Raises NoSplitError where no task is registered with a split that the run reads.

    It opens no data: the splits of a task that leaves them to its TFDS data set are not known.
    """
    name, wanted = config.data.mixture_or_task_name, {config.data.split: ""}
    if config.run.eval_period is not None:
        wanted["validation"] = f"; {WITHOUT_EVALUATION}"
    # Of TfdsDataSource the property itself opens the data set.
    splits = [seqio.DataSource.splits.fget(task.source) for task in all_tasks(config.data)]
    known = sorted({split for own in splits for split in own})
    for split, advice in wanted.items():
        if all(splits) and split not in known:
            raise NoSplitError(
                f"{name} has no split {split!r}: its splits are {', '.join(known)}{advice}"
            )


def open_tasks(config: DataConfig) -> OpenedTasks:
    """Opens the tasks of a split: they exist, fit the config, and their files are there.

    Raises:
      UserError: unknown name or split, a file that is not there, or lengths that do not fit a task.
    """
    seqio_internals.list_anew()
    _check_vocabulary_of_cache(config)
    tasks = tasks_to_read(config)
    _check_tasks(tasks, config)
    vocabulary_size(config)  # reads the vocabulary's file
    for task in tasks:
        check_files_exist(task, config.split, config.use_cached_tasks)
    return OpenedTasks(config, tuple(tasks))


def check_examples(opened: OpenedTasks) -> None:
    """Reads one example of each kind of task; tasks of a kind are preprocessed alike.

    Raises:
      UserError: a file that cannot be read, a preprocessing step that fails, no example at these
        lengths, or examples without inputs or targets.
    """
    kinds = set()
    for task in opened:
        if preprocessing_key(task) not in kinds:
            kinds.add(preprocessing_key(task))
            _check_example(_first_example(task, opened.config), task, opened.config)


def cut_examples(opened: OpenedTasks) -> list[str]:
    """Lines with how many examples lose their end, of the first ones of each task.

    Tasks with another step that looks at the lengths, as span corruption, fit their text to them.

    Raises:
      UserError: a file that cannot be read, or a preprocessing step that fails.
    """
    config, lines = opened.config, []
    for task in filter(_is_cut, opened):
        whole = ordered_dataset(task, config, {})
        examples = read_examples(whole, task, config.split, config.use_cached_tasks)
        first = list(itertools.islice(examples, _EXAMPLES_MEASURED))
        for feature, length in config.task_feature_lengths.items():
            if number := sum(len(example[feature]) > length for example in first):
                lines.append(
                    f"{task.name}: {number} of the first {counted(len(first), 'example')} have "
                    f"more than {counted(length, 'token')} of {feature}, and lose their end"
                )
    return lines


def _is_cut(task: seqio.Task) -> bool:
    """Whether the lengths do nothing but to cut the task's examples off."""
    trim = seqio.preprocessors.append_eos_after_trim
    others = [s for s in task.preprocessors if seqio_internals.without_partial(s) is not trim]
    return not any(map(seqio_internals.takes_lengths, others))


def check_config(config: DataConfig) -> None:
    """Checks the configuration against the tasks that it names, without a look at their data.

    Raises:
      UserError: what is wrong, with the numbers.
    """
    _check_vocabulary_of_cache(config)
    _check_tasks(all_tasks(config), config)


def _check_vocabulary_of_cache(config: DataConfig) -> None:
    if config.use_cached_tasks and config.vocabulary is not None:
        raise UserError(
            f"VOCABULARY = {config.vocabulary!r} with USE_CACHED_TASKS = True: the ids in a cache "
            "are those of the vocabulary that it was made with; set one of them to None or False"
        )


def _check_tasks(tasks: Sequence[seqio.Task], config: DataConfig) -> None:
    for task in tasks:
        check_lengths(task, config.task_feature_lengths)
        if task.requires_caching and not config.use_cached_tasks:
            raise UserError(
                f"{task.name} can only be read from a cache: make one with `switch_jax tasks "
                "cache`, and set USE_CACHED_TASKS to True"
            )


def check_streams(config: DataConfig, batch_size: int) -> None:
    """Raises UserError where the batch does not divide over the streams."""
    if batch_size % config.data_streams:
        raise UserError(
            f"batch size {batch_size} does not divide over {config.data_streams} streams of data; "
            f"set DATA_STREAMS to a divisor of {batch_size}"
        )


def few_streams(config: Config, readers: int) -> list[str]:
    """A warning where hosts split a batch into more parts than there are streams; else nothing."""
    streams = config.data.data_streams
    if readers <= streams:
        return []
    return [
        f"warning: DATA_STREAMS = {streams}, and hosts split the batch into {readers} parts: each "
        f"reads the {config.tokens_read(readers):,} tokens of a whole stream, and uses "
        f"{config.tokens_per_step // readers:,} of them; a run keeps its DATA_STREAMS, and one "
        f"that is begun with {readers} reads them once"
    ]


def _first_example(task: seqio.Task, config: DataConfig) -> Example | None:
    try:
        return next(in_order(task, config), None)
    except (UserError, MemoryError):
        raise
    except Exception as error:  # of a step, while the graph of the steps is made
        raise storage_error(
            f"the examples of {task.name} cannot be preprocessed: {_failure(task, error)}", error
        ) from error


def _failure(task: seqio.Task, error: Exception) -> str:
    """Which step fails, with what message, and whether the step that makes ids is missing."""
    step = seqio_internals.failed_step(error)
    reason = str(error).strip().split("\n")[0].split(" for '{{node")[0]
    failure = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    if step is not None:
        name = getattr(step, "__name__", type(step).__name__)
        failure = f"the step {name} fails: {failure}"
    if tokenize_index(task) is None:
        failure += "; it has no step seqio.preprocessors.tokenize, which text needs"
    return failure


def _check_example(example: Example | None, task: seqio.Task, config: DataConfig) -> None:
    if example is None:
        raise no_examples(task.name, config)
    missing = config.task_feature_lengths.keys() - example.keys()
    if missing:
        raise UserError(
            f"the examples of {task.name} have {', '.join(sorted(example))}, but no "
            f"{' and no '.join(sorted(missing))}: an encoder-decoder needs both"
        )


def check_vocabularies_of_run(model_dir: Path, data: DataConfig) -> None:
    """Checks that the data have the vocabularies that a run was trained with, by its run.json.

    Raises:
      UserError: a vocabulary is another one.
    """
    trained_with = read_run_json(RunFolder(model_dir)).value.get("vocabulary", {})
    for name, vocabulary in identities(data).items():
        expected = trained_with.get(name, vocabulary)
        if vocabulary != expected:
            raise UserError(
                f"the {name} of {data.mixture_or_task_name} have another vocabulary "
                f"({vocabulary}) than {model_dir} was trained with ({expected}), so their ids "
                "would stand for other words; take a task with that vocabulary, or set VOCABULARY "
                "to it"
            )
