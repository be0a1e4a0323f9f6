"""Registered seqio tasks and mixtures, by name."""

import importlib
import os
import sys
from collections.abc import Sequence

import seqio

import switch_jax.tasks  # noqa: F401  registers the tasks that come with the library
from switch_jax.errors import UserError, did_you_mean


def names() -> list[str]:
    """Names of all registered tasks and mixtures, sorted."""
    return sorted({*seqio.TaskRegistry.names(), *seqio.MixtureRegistry.names()})


def provider(name: str) -> seqio.Task | seqio.Mixture:
    """The task or mixture registered under `name`.

    Raises:
      UserError: nothing is registered under this name.
    """
    known = names()
    if name in known:
        return seqio.get_mixture_or_task(name)
    suggestion = did_you_mean(name, known)
    raise UserError(
        f"no task or mixture is registered as {name!r}: {suggestion}A task of your own is known "
        "once its module is imported (in gin: `import my_tasks`; for `switch_jax tasks`: --import "
        "my_tasks); `switch_jax tasks` lists all"
    )


def tasks_of(name: str) -> list[seqio.Task]:
    """The task itself, or the tasks of a mixture, sorted by name."""
    found = provider(name)
    return found.tasks if isinstance(found, seqio.Mixture) else [found]


def tasks_with_split(name: str, split: str) -> list[seqio.Task]:
    """Those of `tasks_of(name)` that have the split.

    Raises:
      UserError: none has it, or the data of a task is not there.
    """
    tasks = tasks_of(name)
    for task in tasks:
        if not task.source.splits:
            raise UserError(
                f"{task.name} finds no data in {task.source}: a data set of TFDS has to be "
                "prepared first; TFDS_DATA_DIR names the folder that holds it"
            )
    found = [task for task in tasks if split in task.splits]
    if not found:
        splits = sorted({split for task in tasks for split in task.splits})
        raise UserError(f"{name} has no split {split!r}: its splits are {', '.join(splits)}")
    return found


def mixing_rates(name: str, tasks: Sequence[seqio.Task]) -> list[float]:
    """How often an example of each task comes, relative to the others."""
    found = provider(name)
    return [found.get_rate(t) if isinstance(found, seqio.Mixture) else 1.0 for t in tasks]


def import_tasks(module: str) -> None:
    """Imports a module that registers tasks, from the current directory or an installed package.

    Raises:
      UserError: there is no such module.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"cannot import {module!r} (no module named {error.name!r}): give a module that lies "
            f"in {os.getcwd()} or is installed, without .py"
        ) from error
