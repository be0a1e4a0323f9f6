"""Whether all hosts see the same data files: one that lacks a file would read other examples."""

from switch_jax.data.configured_tasks import OpenedTasks
from switch_jax.data.data_files import FilesOfTask, changed_files, data_files, summary
from switch_jax.errors import UserError
from switch_jax.runtime.processes import gather, run_on_all


def files_of_all_hosts(opened: OpenedTasks) -> dict[str, FilesOfTask]:
    """The files of each task, after a comparison of all processes; all of them call this.

    Raises:
      UserError: they differ, or one cannot be reached.
    """
    files = run_on_all(lambda: data_files(opened))
    own = {task: summary(found) for task, found in files.items()}
    hosts = [{task: FilesOfTask(*of) for task, of in host.items()} for host in gather(own)]
    for index, host in enumerate(hosts):
        for task in changed_files(hosts[0], host):
            lists = gather([(file.name, file.size) for file in files[task]])
            ours, theirs = dict(lists[0]), dict(lists[index])
            raise UserError(
                f"process {index} has other files of {task} than process 0: "
                f"{_difference(ours, theirs)}; give all hosts the same files"
            )
    return own


def _difference(ours: dict[str, int | None], theirs: dict[str, int | None]) -> str:
    """The first file that only one process has, or that has another size; sizes by name."""
    for name in {**ours, **theirs}:
        if name not in theirs:
            return f"it lacks {name}, and has {len(theirs):,} files in place of {len(ours):,}"
        if name not in ours:
            return f"it has {name}, too, and {len(theirs):,} files in place of {len(ours):,}"
        if ours[name] != theirs[name]:
            return f"{name} has {theirs[name]} bytes in place of {ours[name]}"
    return "they come in another order"
