"""Writes the caches of tasks with seqio's own pipeline: tokens, before shuffling and masking."""

import re
from collections.abc import Sequence

from switch_jax.data.catalogue.registry import get_tasks, readable_splits
from switch_jax.data.catalogue.vocabularies import ensure_loaded
from switch_jax.data.reading import seqio_internals
from switch_jax.data.reading.sources import check_not_cut_off
from switch_jax.tasks import FAMILIES
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio

_SEED = 1  # of random steps before the placeholder; seqio treats 0 as no seed


def cache(name: str, folder: str, modules: Sequence[str] = ()) -> list[str]:
    """Writes the cache of a task, or of each of a mixture; returns the folders of the tasks.

    `folder`, also in a bucket, is for --seqio_additional_cache_dirs. `modules` register the tasks;
    the workers of Apache Beam import them. Raises UserError: Apache Beam is missing, a task cannot
    be cached or is already, or data is missing.
    """
    tasks = get_tasks(name)
    seqio.add_global_cache_dirs([folder])
    for task in tasks:
        _check(task)
    try:
        import apache_beam as beam
        from seqio.scripts import cache_tasks_main
    except (ImportError, TypeError) as error:  # TypeError: generated for another protobuf
        raise UserError(
            f"a cache is made with Apache Beam, which cannot be imported here ({error}): "
            "run `pip install 'switch_jax[cache]'` in an environment of its own "
            "(docs/prepare_data.md)"
        ) from error
    data_dir = seqio_internals.tfds_data_dir() or ""
    cache_tasks_main.FLAGS(["seqio", f"--base_seed={_SEED}", f"--tfds_data_dir={data_dir}"])
    with beam.Pipeline(options=beam.options.pipeline_options.PipelineOptions([])) as pipeline:
        return cache_tasks_main.run_pipeline(
            pipeline,
            [re.escape(task.name) for task in tasks],
            folder,
            modules_to_import=[*FAMILIES, *modules],
        )


def _check(task: seqio.Task) -> None:
    if not task.supports_caching:
        raise UserError(
            f"{task.name} cannot be cached: put seqio.CacheDatasetPlaceholder() among its "
            "preprocessors, after those that tokenise and before those that shuffle or mask"
        )
    for split in readable_splits(task):
        check_not_cut_off(task, split)
    for feature in task.output_features.values():
        ensure_loaded(feature.vocabulary)
    folder = seqio_internals.cache_folder(task)
    if folder:
        raise UserError(f"{task.name} has a cache in {folder} already: remove it first")
