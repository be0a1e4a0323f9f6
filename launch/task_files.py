"""Files of this machine that the tasks of a run read, and that hosts in a cloud do not have."""

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from switch_jax.config import DataConfig
from switch_jax.data.catalogue.configured_tasks import all_tasks
from switch_jax.data.reading import seqio_internals
from switch_jax.storage import on_this_machine
from switch_jax.tasks.english import DATA
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio

_MOST_NAMED = 8


def check(own_files: Sequence[str], data: DataConfig, splits: Sequence[str]) -> None:
    """Raises UserError if a file that the tasks name is neither in a bucket nor in the image."""
    named = dict.fromkeys(p for t in all_tasks(data) for p in _patterns(t, data, splits))
    missing = [path for path in named if not _is_on_hosts(path, own_files)]
    if missing:
        more = [f"and {len(missing) - _MOST_NAMED} more"] if missing[_MOST_NAMED:] else []
        raise UserError(
            "the hosts have no file of this machine, and the tasks of this run read "
            f"{', '.join([*missing[:_MOST_NAMED], *more])}: copy them to a bucket, and write "
            "gs://BUCKET/... in the task"
        )


def _patterns(task: seqio.Task, data: DataConfig, splits: Sequence[str]) -> Iterator[str]:
    """The files and folders that a task names, as patterns."""
    loader = getattr(task.source, "tfds_dataset", None)
    if data.use_cached_tasks and task.supports_caching:
        folders = list(seqio.get_global_cache_dirs())
        if on_this_machine(folders) == folders and task.cache_dir:
            yield task.cache_dir
    elif isinstance(task.source, seqio.FileDataSource):
        for split in (split for split in splits if split in task.source.splits):
            yield from map(str, seqio_internals.file_patterns(task.source, split))
    elif loader and loader.name and not seqio_internals.tfds_data_dir() and loader.data_dir:
        yield os.path.join(loader.data_dir, re.split("[/:]", loader.name)[0])
    for feature in task.output_features.values():
        yield str(getattr(feature.vocabulary, "sentencepiece_model_file", ""))


def _is_on_hosts(path: str, own_files: Sequence[str]) -> bool:
    if not path or not on_this_machine([path]) or "site-packages" in Path(path).parts:
        return True
    folders = [DATA, *map(Path, own_files)]
    return any(Path(path).resolve().is_relative_to(folder.resolve()) for folder in folders)
