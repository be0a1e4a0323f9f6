"""Registered seqio tasks and mixtures by name, their splits and their rates."""

import importlib
import math
import os
from collections.abc import Iterable, Sequence
from typing import Any

from switch_jax.data.reading import seqio_internals
from switch_jax.tasks import FAMILIES
from switch_jax.utils.errors import UserError, did_you_mean, storage_error
from switch_jax.utils.tensorflow_setup import seqio, tf, tfds


def names() -> list[str]:
    """The names of all tasks and mixtures, sorted; imports all families of tasks."""
    for family in FAMILIES:
        _import_family(family)
    return sorted(_registered())


def get_mixture_or_task(name: str) -> seqio.Task | seqio.Mixture:
    """The task or mixture with this name; imports families of tasks until one registers it.

    `name` may be rates by names, as 'my_task=3, c4_span_corruption=1'. Raises UserError where no
    task or mixture has the name.
    """
    if "=" in name:
        return _mixture(name)
    families = iter(FAMILIES)
    while name not in _registered():
        family = next(families, None)
        if family is None:
            raise UserError(
                f"no task or mixture is registered as {name!r}{did_you_mean(name, names())}: "
                "a task of your own is known once its module is imported (`import my_tasks` in "
                "gin; `switch_jax tasks` has --import=my_tasks)"
            )
        _import_family(family)
    return seqio.get_mixture_or_task(name)


def _mixture(name: str) -> seqio.Mixture:
    """Makes a mixture of rates by name, as 'my_task=3, c4_span_corruption=1'."""
    rates: dict[str, float] = {}
    for part in name.split(","):
        task, _, rate = map(str.strip, part.partition("="))
        try:
            rates[task] = float(rate)
        except ValueError:
            raise UserError(
                f"{name!r} is no mixture: {part.strip()!r} is not NAME=RATE, as in 'my_task=3, "
                "c4_span_corruption=1'"
            ) from None
    if len(rates) <= name.count(","):
        raise UserError(f"{name!r} names a task twice")
    try:
        return seqio.Mixture(
            name, [(get_mixture_or_task(task), rate) for task, rate in rates.items()]
        )
    except ValueError as error:
        raise UserError(" ".join(str(error).split())) from error


def _registered() -> set[str]:
    return {*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()}


def _import_family(family: str) -> None:
    try:
        importlib.import_module(family)
    except ValueError as error:  # a module of the user's has registered a name of the family
        raise UserError(f"{family} cannot be imported: {error}: choose another name") from error


def get_tasks(name: str) -> list[seqio.Task]:
    """The task itself, or the tasks of a mixture, sorted by name."""
    found = get_mixture_or_task(name)
    return found.tasks if isinstance(found, seqio.Mixture) else [found]


def tasks_with_split(name: str, split: str, use_cached: bool = False) -> list[seqio.Task]:
    """The tasks of `get_tasks(name)` that have a split, in their caches with `use_cached`.

    Raises UserError where no task has it, or the data of a task is missing.
    """
    splits = {task: readable_splits(task, use_cached) for task in get_tasks(name)}
    found = [task for task, own_splits in splits.items() if split in own_splits]
    if not found:
        raise no_split(name, split, set().union(*splits.values()))
    return found


def no_split(name: str, split: str, known: Iterable[str]) -> UserError:
    """Makes the error that none of the tasks has a split; `known` are those that there are."""
    advice = "; to look at another one give --split, to train without evaluation EVAL_PERIOD = None"
    return UserError(
        f"{name} has no split {split!r}: its splits are {', '.join(sorted(known))}"
        + advice * (split == "validation")
    )


def readable_splits(task: seqio.Task, use_cached: bool = False) -> list[str]:
    """The splits that can be read, from the cache or the source; UserError where there is none."""
    loader = getattr(task.source, "tfds_dataset", None)
    try:
        if use_cached and task.supports_caching:
            return _splits_in_cache(task)
        if loader is not None and loader.name:
            return _splits_in_tfds(task, loader)
    except (OSError, tf.errors.OpError) as error:  # from a bucket
        reason = " ".join(str(error).split())
        raise storage_error(
            f"the data of {task.name} cannot be reached: {reason}", error
        ) from error
    return list(task.splits)


def tfds_folders(loader: seqio.LazyTfdsLoader) -> list[Any]:
    """Returns the folders where a TFDS data set is looked for."""
    if loader.data_dir:
        return [loader.data_dir]
    return list(tfds.core.utils.file_utils.list_data_dirs(None))


def _splits_in_tfds(task: seqio.Task, loader: seqio.LazyTfdsLoader) -> list[str]:
    where = " or ".join(map(str, tfds_folders(loader)))
    try:
        prepared = loader.info.splits
    except (AssertionError, ValueError):  # the data set or version does not exist
        prepared = {}
    if not prepared:
        raise UserError(
            f"{task.name} reads the TFDS data set {loader.name}, which is not in {where}: "
            f"prepare it with tfds.builder({loader.name!r}, data_dir=...).download_and_prepare(), "
            "or say with --tfds_data_dir where it is (docs/prepare_data.md)"
        )
    tfds_names = {split: seqio_internals.tfds_split(loader, split) for split in task.splits}
    found = [split for split, name in tfds_names.items() if name.split("[")[0] in prepared]
    if not found:
        raise UserError(
            f"{task.name} reads {', '.join(tfds_names.values())} of the TFDS data set "
            f"{loader.name}, but in {where} it has only {', '.join(prepared)}: prepare the others "
            "(docs/prepare_data.md)"
        )
    return found


def _splits_in_cache(task: seqio.Task) -> list[str]:
    if not seqio_internals.cache_folder(task):
        folders = " or ".join(seqio.get_global_cache_dirs())
        raise UserError(
            f"USE_CACHED_TASKS is True, but there is no cache of {task.name} in "
            f"{folders or 'any folder, as none is given'} (--seqio_additional_cache_dirs)"
        )
    info_files = tf.io.gfile.glob(seqio.get_cached_info_path(task.cache_dir, "*"))
    return [os.path.basename(path).split(".")[1] for path in info_files]


def mixing_rates(name: str, tasks: Sequence[seqio.Task]) -> list[float]:
    """Returns how often an example of each task is read, relative to the others.

    `tasks` are those of the task or mixture `name`, or variants with the same names. Raises
    UserError where a rate is no finite number of at least 0, or all are 0.
    """
    found = get_mixture_or_task(name)
    if not isinstance(found, seqio.Mixture):
        return [1.0 for _ in tasks]
    registered = {task.name: task for task in found.tasks}
    try:
        rates = [found.get_rate(registered[task.name]) for task in tasks]
    except (TypeError, ValueError, ZeroDivisionError) as error:  # of a function that gives a rate
        raise UserError(f"a rate of {name} is no number: {error}") from error
    if not any(rates) or not all(0 <= rate < math.inf for rate in rates):
        given = (f"{task.name} = {rate}" for task, rate in zip(tasks, rates, strict=True))
        raise UserError(
            f"{name} has the rates {', '.join(given)}: write finite numbers of at least 0, and one "
            "above 0"
        )
    return rates
