"""All that a release of seqio or TensorFlow may break: what is replaced in them, private names.

Importing this module replaces two functions of seqio in the process, so that tasks may have files
and SentencePiece models in any bucket. tests/test_patched_releases.py names the releases that it
was written for.
"""

import contextlib
import functools
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from switch_jax.storage import file_sizes, in_bucket, local_copy, matching, read_range, relist
from switch_jax.utils.tensorflow_setup import seqio, tf

# The caches that are in buckets, by where seqio finds a copy of their descriptions.
_CACHES_IN_BUCKETS: dict[str, str] = {}
_glob = seqio.utils._list_files_for_glob
_load_model = seqio.vocabularies._load_model


def _glob_anywhere(pattern: str) -> list[str]:
    """In the place of seqio's function, which asks TensorFlow's client for gs:// and has no s3://."""
    return matching(pattern) if in_bucket(pattern) else _glob(pattern)


def _load_model_anywhere(file: str, *options: Any) -> Any:
    """In the place of seqio's function, which reads SentencePiece models by TensorFlow's client."""
    return _load_model(local_copy(file), *options)


seqio.utils._list_files_for_glob = _glob_anywhere
seqio.vocabularies._load_model = _load_model_anywhere


def list_anew() -> None:
    """Files on disks are looked for anew when they are next asked about."""
    _glob.cache_clear()


@contextlib.contextmanager
def random_by_block(block_seed: tf.Tensor) -> Iterator[None]:
    """Within, the random numbers of seqio's preprocessors depend on `block_seed` too.

    Their seeds come from `tf.data.Dataset.random`, whose own seed is a Python number, the same in
    each run of a graph: all blocks would be masked alike. Here its numbers meet `block_seed`. The
    function is replaced for the whole process: one thread at a time may be within.
    """
    original = tf.data.Dataset.__dict__["random"]

    def random(*args: Any, **kwargs: Any) -> tf.data.Dataset:
        numbers = original.__func__(*args, **kwargs)
        return numbers.map(lambda number: tf.bitwise.bitwise_xor(number, block_seed))

    tf.data.Dataset.random = staticmethod(random)
    try:
        yield
    finally:
        tf.data.Dataset.random = original


def cache_folder(task: seqio.Task) -> str | None:
    """The folder of the task's cache, from now on known to seqio; None: it has none."""
    if not task._cache_dir:
        name = seqio.get_task_dir_from_name(task.name)
        places = (f"{folder.rstrip('/')}/{name}" for folder in seqio.get_global_cache_dirs())
        place = next(filter(_is_finished, places), None)
        task._cache_dir = _with_descriptions_here(place) if place else None
    return _CACHES_IN_BUCKETS.get(task._cache_dir, task._cache_dir)


def _is_finished(cache: str) -> bool:
    marker = f"{cache}/COMPLETED"
    relist([marker])
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        return bool(file_sizes([marker]))
    return False


def _with_descriptions_here(cache: str) -> str:
    """A folder that has the JSON files of a cache where TensorFlow can read them."""
    if not in_bucket(cache):
        return cache
    copy = f"ram://switch_jax/caches/{cache.replace('://', '/')}"
    tf.io.gfile.makedirs(copy)
    for kind in ("info", "stats"):
        for file in matching(f"{cache}/{kind}.*.json"):
            with tf.io.gfile.GFile(f"{copy}/{file.rpartition('/')[2]}", "wb") as copied:
                copied.write(read_range(file, 0, *file_sizes([file])))
    _CACHES_IN_BUCKETS[copy] = cache
    return copy


def cached_source(task: seqio.Task, split: str) -> seqio.DataSource:
    """The data source that reads a split from the task's cache."""
    folder = cache_folder(task)
    source = task._get_cached_source(split)
    (pattern,) = file_patterns(source, split)
    pattern = pattern.replace(str(task._cache_dir), str(folder), 1)
    source._split_to_filepattern = {split: pattern}
    return source


def file_reader(source: seqio.FileDataSource) -> tuple[Callable[[Any], tf.data.Dataset], int]:
    """From the path of a file to its examples; the lines at its beginning that are skipped."""
    return source._reader, getattr(source, "_skip_header_lines", 0)


def is_cache(source: seqio.DataSource) -> bool:
    """Whether a source reads a cache that seqio has written."""
    return type(source) is seqio.dataset_providers._CachedDataSource


def files_at_once(source: seqio.DataSource, split: str) -> tuple[int, int]:
    """From how many files in turn a source reads in its order, and how many examples of each."""
    if isinstance(source, seqio.FileDataSource):
        return source._cycle_length, source._block_length
    builder, _ = tfds_builder(source.tfds_dataset, split)
    return 1 if builder.info.disable_shuffling else 16, 16  # TFDS's own


def set_source(task: seqio.Task, source: seqio.DataSource) -> None:
    """Gives a task that is registered another source."""
    task._source = source


@contextlib.contextmanager
def called_in_workers(setup: Callable[[], None]) -> Iterator[None]:
    """Within it, Apache Beam's workers call `setup` before they look for a task by its name."""
    from seqio import beam_utils  # needs Apache Beam

    original = beam_utils.PreprocessTask
    beam_utils.PreprocessTask = functools.partial(original, setup_fn=setup)
    try:
        yield
    finally:
        beam_utils.PreprocessTask = original


def file_patterns(source: seqio.FileDataSource, split: str) -> list[str]:
    """The names of a split's files, and patterns of them."""
    found = source._split_to_filepattern[split]
    return [found] if isinstance(found, str) else list(found)


def tfds_split(loader: seqio.LazyTfdsLoader, split: str) -> str:
    """The name of a task's split in TFDS."""
    return loader._map_split(split)


def tfds_builder(loader: seqio.LazyTfdsLoader, split: str) -> tuple[Any, Any]:
    """The TFDS builder of the data set that has a split, and the decoders that the task sets."""
    return loader._get_builder(split), loader._decoders


def tfds_data_dir() -> str | None:
    """The folder that the flag --tfds_data_dir sets."""
    return seqio.utils._TFDS_DATA_DIR_OVERRIDE


def validate_and_trim(
    task: seqio.Task, dataset: tf.data.Dataset, lengths: Mapping[str, int]
) -> tf.data.Dataset:
    """Checks preprocessed examples against the task's features and trims them to `lengths`."""
    return task._trim_output_features(task._validate_preprocessing(dataset), lengths)


def failed_step(error: BaseException) -> Callable[..., Any] | None:
    """The preprocessing step that has raised an error, without set arguments; None: unknown."""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        if frame.f_code is seqio.Task._preprocess_dataset.__code__:
            return without_partial(frame.f_locals.get("prep_fn"))
    return None


def without_partial(step: Any) -> Any:
    """A preprocessing step without its set arguments, as it stands in its module."""
    return without_partial(step.func) if isinstance(step, functools.partial) else step
