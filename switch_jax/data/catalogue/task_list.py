"""The list of tasks and mixtures, for `switch_jax tasks`: what can be read here, and the rest."""

import contextlib
import functools
import re
import textwrap
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from switch_jax.data.catalogue.configured_tasks import with_folder
from switch_jax.data.catalogue.registry import (
    get_mixture_or_task,
    get_tasks,
    names,
    readable_splits,
    tfds_folders,
)
from switch_jax.data.reading.sources import files_digest
from switch_jax.storage import list_names, storage_path
from switch_jax.utils.errors import UserError
from switch_jax.utils.tensorflow_setup import seqio
from switch_jax.utils.units import aligned

_FAMILY = 8  # names that begin alike from this number on are shown as one


def task_list(pattern: str = "*", c4_json_dir: str | None = None) -> str:
    """A table of what can be read here, with kind and splits; then the names of the rest.

    `pattern` is of the names, as 'glue*'; with '*' a large family has one line. UserError if no
    name matches it.
    """
    found = [name for name in names() if fnmatchcase(name, pattern)]
    if not found:
        raise UserError(f"no task or mixture matches {pattern!r}: `switch_jax tasks` lists all")
    splits: dict[str, set[str]] = {}
    for name in found:
        by_task = [_local_splits(task, c4_json_dir) for task in get_tasks(name)]
        splits[name] = set().union(*by_task) if all(by_task) else set()
    smallest = _FAMILY if pattern == "*" else len(found) + 1
    here = _by_family([name for name in found if splits[name]], smallest)
    rest = _by_family([name for name in found if not splits[name]], smallest)
    lines = []
    if here:
        rows = [("can be read here", "kind", "splits")]
        for label, members in here.items():
            all_splits = set().union(*(splits[name] for name in members))
            rows.append((label, _kind(members), ", ".join(sorted(all_splits))))
        lines += aligned(rows)
    if rest:
        lines += ["", "not here; --tfds_data_dir gives TFDS data (docs/prepare_data.md):"]
        labels = (n + f" ({len(members)})" * (len(members) > 1) for n, members in rest.items())
        lines += textwrap.wrap(", ".join(labels), 100, break_on_hyphens=False)
    if pattern == "*":
        lines += ["", "`switch_jax tasks 'glue*'` lists a family, `switch_jax tasks NAME` examples"]
    return "\n".join(lines).strip("\n")


def _by_family(names: Sequence[str], smallest: int) -> Mapping[str, Sequence[str]]:
    """Groups names by label: a large family has the label "mc4*", others are their own label."""
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(re.split(r"[_.]", name)[0], []).append(name)
    labelled: dict[str, list[str]] = {}
    for family, members in families.items():
        together = len(members) >= smallest
        labelled |= {f"{family}*": members} if together else {name: [name] for name in members}
    return labelled


def _kind(names: Sequence[str]) -> str:
    if len(names) > 1:
        return f"{len(names)} of them"
    return "mixture" if isinstance(get_mixture_or_task(names[0]), seqio.Mixture) else "task"


def _local_splits(task: seqio.Task, c4_json_dir: str | None) -> list[str]:
    """Returns the splits that can be read on this machine; uses no network, and reads no data."""
    loader = getattr(task.source, "tfds_dataset", None)
    if loader is None:
        splits = []
        for split in task.splits:
            with contextlib.suppress(UserError):  # files are missing, or the folder is not given
                files_digest(with_folder(task, c4_json_dir), split, use_cached=False)
                splits.append(split)
        return splits
    data_set = re.split("[/:]", loader.name or "")[0]
    if not any(data_set in _data_sets(str(folder)) for folder in tfds_folders(loader)):
        return []
    try:
        return readable_splits(task)
    except UserError:  # another version or config is there
        return []


@functools.cache
def _data_sets(folder: str) -> frozenset[str]:
    """The names of the TFDS data sets in a folder; none where it is not there."""
    try:
        return frozenset(list_names(storage_path(folder)))
    except (OSError, UserError):  # also of a storage that TFDS alone knows
        return frozenset()
