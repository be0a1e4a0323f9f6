"""Writes the caches of tasks with seqio's own pipeline: tokens, before shuffling and masking."""

import contextlib
import functools
import importlib
import io
import itertools
import re
from collections.abc import Sequence
from typing import Any

from switch_jax.data.catalogue.configured_tasks import with_folder
from switch_jax.data.catalogue.registry import get_tasks, readable_splits
from switch_jax.data.catalogue.vocabularies import ensure_loaded
from switch_jax.data.reading import seqio_internals
from switch_jax.data.reading.sources import check_not_cut_off
from switch_jax.tasks import FAMILIES
from switch_jax.tasks.c4_files import C4Files
from switch_jax.utils.errors import UserError, did_you_mean
from switch_jax.utils.tensorflow_setup import seqio

_SEED = 1  # of random steps before the placeholder; seqio treats 0 as no seed


def cache(
    name: str,
    folder: str,
    modules: Sequence[str] = (),
    beam_options: Sequence[str] = (),
    c4_json_dir: str | None = None,
) -> list[str]:
    """Writes the cache of a task, or of each of a mixture; returns the folders of the tasks.

    Raises UserError: Apache Beam is missing or refuses its options, a task cannot be cached or is
    already, or data is missing.

    Args:
      name: of the task or mixture.
      folder: also in a bucket, for --seqio_additional_cache_dirs.
      modules: register the tasks; the workers of Apache Beam import them.
      beam_options: 'NAME=VALUE' or 'NAME' of Apache Beam, as 'runner=DataflowRunner'; by default it
        works in this process.
      c4_json_dir: see `DataConfig`.
    """
    tasks = [with_folder(task, c4_json_dir) for task in get_tasks(name)]
    seqio.add_global_cache_dirs([folder])
    for task in tasks:
        _check(task)
    try:
        import apache_beam as beam
        from seqio.scripts import cache_tasks_main
    except (ImportError, TypeError) as error:  # TypeError: generated for another protobuf
        raise UserError(
            f"a cache is made with Apache Beam, which cannot be imported here ({error}): "
            "run `pip install '.[cache]'` in the checkout, in an environment of its own "
            "(docs/prepare_data.md)"
        ) from error
    data_dir = seqio_internals.tfds_data_dir() or ""
    cache_tasks_main.FLAGS(["seqio", f"--base_seed={_SEED}", f"--tfds_data_dir={data_dir}"])
    in_workers: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if c4_json_dir is not None:
        in_copy = [task.name for task in tasks if isinstance(task.source, C4Files)]
        set_folder = functools.partial(_set_folder, in_copy, c4_json_dir, modules)
        set_folder()
        in_workers = seqio_internals.called_in_workers(set_folder)
    with in_workers, _pipeline(beam, beam_options) as pipeline:
        return cache_tasks_main.run_pipeline(
            pipeline,
            [re.escape(task.name) for task in tasks],
            folder,
            modules_to_import=[*FAMILIES, *modules],
        )


def _set_folder(names: Sequence[str], c4_json_dir: str, modules: Sequence[str]) -> None:
    """Gives registered tasks their folder, since seqio looks for them by name; also in workers."""
    for module in modules:
        importlib.import_module(module)
    for task in itertools.chain.from_iterable(map(get_tasks, names)):
        seqio_internals.set_source(task, with_folder(task, c4_json_dir).source)


def _pipeline(beam: Any, options: Sequence[str]) -> Any:
    """A pipeline of Apache Beam with these options; UserError where it refuses them."""
    given = ",".join(options)
    written = io.StringIO()
    try:
        with contextlib.redirect_stderr(written):  # where its parser explains mistakes
            found = beam.options.pipeline_options.PipelineOptions([f"--{x}" for x in options])
            known, every = (found.get_all_options(retain_unknown_options=x) for x in (False, True))
            pipeline = beam.Pipeline(options=found)
    except (Exception, SystemExit) as error:  # also of a cloud that it cannot reach
        lines = written.getvalue().splitlines() if isinstance(error, SystemExit) else [str(error)]
        reason = " ".join(" ".join(lines[-1:]).split())
        raise UserError(f"Apache Beam does not start with the options {given}: {reason}") from error
    # Those that Beam does not know are for other runners. Without one they are mistakes.
    if known["runner"] is None and (unknown := sorted(every.keys() - known.keys())):
        raise UserError(
            f"Apache Beam has no option {unknown[0]}{did_you_mean(unknown[0], list(known))}"
        )
    return pipeline


def _check(task: seqio.Task) -> None:
    if not task.supports_caching:
        raise UserError(
            f"{task.name} cannot be cached: put seqio.CacheDatasetPlaceholder() among its "
            "preprocessors, after those that tokenise and before those that shuffle or mask"
        )
    if not isinstance(task.source, C4Files):  # there are many; of JSON a part of a line is none
        for split in readable_splits(task):
            check_not_cut_off(task, split)
    for feature in task.output_features.values():
        ensure_loaded(feature.vocabulary)
    folder = seqio_internals.cache_folder(task)
    if folder:
        raise UserError(f"{task.name} has a cache in {folder} already: remove it first")
