"""Whether all hosts see the same data files: one that lacks a file would read other examples."""

from collections.abc import Sequence

from switch_jax.data.configured_tasks import OpenedTasks
from switch_jax.data.data_files import FilesOfTask, changed_files, data_files, summary
from switch_jax.errors import UserError
from switch_jax.runtime.processes import gather, run_on_all


def files_of_all_hosts(opened: OpenedTasks) -> dict[str, FilesOfTask]:
    """The files of each task, as process 0 sees them, if all see the same; all of them call this.

    Raises:
      UserError: they differ, or one cannot be reached.
    """
    files = run_on_all(lambda: data_files(opened))
    own = {task: summary(found) for task, found in files.items()}
    hosts = [{task: FilesOfTask(*of) for task, of in host.items()} for host in gather(own)]
    for index, host in enumerate(hosts):
        for task in sorted(hosts[0].keys() ^ host.keys()):
            found, missing = (0, index) if task in hosts[0] else (index, 0)
            raise UserError(
                f"process {found} finds data of {task}, and process {missing} finds none; give all "
                "hosts the same files"
            )
        for task in changed_files(hosts[0], host):
            lists = gather([(file.name, file.size) for file in files[task]])
            raise UserError(
                f"process {index} has other files of {task} than process 0: "
                f"{_difference(lists[0], lists[index])}; give all hosts the same files"
            )
    return own


def _difference(ours: Sequence[tuple[str, int]], theirs: Sequence[tuple[str, int]]) -> str:
    """The first file that only one process has, or that has another size; names and sizes."""
    sizes, other_sizes = dict(ours), dict(theirs)
    for name in {**sizes, **other_sizes}:
        if name not in other_sizes:
            return f"it lacks {name}, and has {len(theirs):,} files in place of {len(ours):,}"
        if name not in sizes:
            return f"it has {name}, too, and {len(theirs):,} files in place of {len(ours):,}"
        if sizes[name] != other_sizes[name]:
            return f"{name} has {other_sizes[name]} bytes in place of {sizes[name]}"
    return f"{len(theirs):,} in place of {len(ours):,}, or in another order"
