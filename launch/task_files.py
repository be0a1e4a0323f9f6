"""Files that the tasks of a run read: those that other machines do not have, and their buckets."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from switch_jax.config import Config
from switch_jax.data.catalogue.configured_tasks import all_tasks
from switch_jax.data.reading import seqio_internals
from switch_jax.storage import in_bucket, local_paths
from switch_jax.tasks.english import DATA
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio

_MOST_NAMED = 8


def check(user_files: Sequence[str], config: Config) -> None:
    """Raises UserError if a file that the tasks name is neither in a bucket nor in the image."""
    features = [f for task in all_tasks(config.data) for f in task.output_features.values()]
    vocabularies = [getattr(f.vocabulary, "sentencepiece_model_file", "") for f in features]
    named = dict.fromkeys([*sources(config), *map(str, vocabularies)])
    missing = [path for path in named if not _is_on_hosts(path, user_files)]
    if missing:
        more = [f"and {len(missing) - _MOST_NAMED} more"] if missing[_MOST_NAMED:] else []
        raise UserError(
            "the hosts have no file of this machine, and the tasks of this run read "
            f"{', '.join([*missing[:_MOST_NAMED], *more])}: copy them to a bucket, and write "
            "gs://BUCKET/... in the task"
        )


def in_buckets(config: Config) -> list[str]:
    """Returns the files and folders in buckets that the tasks' examples are in, as patterns."""
    return [path for path in sources(config) if in_bucket(path)]


def sources(config: Config) -> Iterator[str]:
    """Yields the files and folders that the tasks' examples are in, as patterns."""
    splits = {config.data.split, *(["validation"] if config.run.eval_period is not None else [])}
    for task in all_tasks(config.data):
        loader = getattr(task.source, "tfds_dataset", None)
        if config.data.use_cached_tasks and task.supports_caching:
            yield from _caches(task)
        elif isinstance(task.source, seqio.FileDataSource):
            for split in sorted(splits & set(task.source.splits)):
                yield from map(str, seqio_internals.file_patterns(task.source, split))
        elif loader and loader.name:
            # The loader would keep what the flag sets.
            if folder := seqio_internals.tfds_data_dir() or loader.data_dir:
                yield os.path.join(folder, re.split("[/:]", loader.name)[0])


def _caches(task: seqio.Task) -> Iterator[str]:
    """Yields folders that may have the task's cache: all in buckets, or else the one found here."""
    in_cloud = [folder for folder in seqio.get_global_cache_dirs() if in_bucket(folder)]
    if in_cloud:
        yield from in_cloud
    elif task.cache_dir:
        yield task.cache_dir


def _is_on_hosts(path: str, user_files: Sequence[str]) -> bool:
    if not path or not local_paths([path]) or "site-packages" in Path(path).parts:
        return True
    folders = [DATA, *map(Path, user_files)]
    return any(Path(path).resolve().is_relative_to(folder.resolve()) for folder in folders)
