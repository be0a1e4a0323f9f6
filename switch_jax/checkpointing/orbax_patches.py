"""Changes Orbax for damaged files and failing disks; only here its private names are used."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import Coroutine, Iterator
from typing import Any

import tensorstore as ts
from etils import epath
from orbax.checkpoint._src import asyncio_utils
from orbax.checkpoint._src.futures import future, synchronization
from orbax.checkpoint._src.path import gcs_utils
from orbax.checkpoint._src.path import step as step_folders
from orbax.checkpoint._src.serialization import serialization, tensorstore_utils
from orbax.checkpoint.experimental.v1._src.handlers.pytree_handler import PyTreeHandler

# Seconds to wait for the other reads and writes after one has failed.
_OTHERS_TIMEOUT = 60


@functools.cache
def apply() -> None:
    """Makes all changes that stay in force; a second call does nothing."""
    _add_checksums()
    _await_other_tasks()
    _describe_arrays_without_condition()
    _need_no_right_to_see_the_bucket()
    logging.getLogger("absl").addFilter(_says_something_new)


def _add_checksums() -> None:
    """Makes Orbax write a checksum with every chunk of an array; there is no public option.

    Without it a flipped bit silently comes back as another number. Any Orbax reads such files.
    """
    build = tensorstore_utils._build_zarr3_metadata

    def with_checksums(*args: Any, **kwargs: Any) -> dict[str, Any]:
        metadata = build(*args, **kwargs)
        metadata["codecs"][0]["configuration"]["codecs"].append({"name": "crc32c"})
        return metadata

    tensorstore_utils._build_zarr3_metadata = with_checksums


def _describe_arrays_without_condition() -> None:
    """Makes Orbax write the metadata of an array in a new checkpoint even if it is there already.

    By default it must not be there: if the answer to its write was lost, TensorStore finds what it
    has written itself, and the save fails.
    """
    serialization.ts = _TensorStore()


class _TensorStore:
    # Nothing is lost: only the first process creates, and in a new folder, with nothing to delete.

    def __getattr__(self, name: str) -> Any:
        return getattr(ts, name)

    def open(self, spec: ts.Spec, **options: Any) -> Any:
        if options.get("create") and options.get("transaction"):
            options = {**options, "open": False, "delete_existing": True}
        return ts.open(spec, **options)


def _await_other_tasks() -> None:
    """Makes Orbax wait for its other reads and writes if one fails: each would print a trace."""
    run = asyncio_utils.run_sync

    @functools.wraps(run)
    def run_sync(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return run(_then_await_others(coroutine))

    asyncio_utils.run_sync = run_sync


async def _then_await_others(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except BaseException:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        if others:
            done, _ = await asyncio.wait(others, timeout=_OTHERS_TIMEOUT)
            for task in done:
                if not task.cancelled():
                    task.exception()  # otherwise asyncio logs that it was never retrieved
        raise


def _need_no_right_to_see_the_bucket() -> None:
    """Makes Orbax assume a bucket without folders if it has no right to look up the bucket's type.

    Orbax looks it up before it removes a checkpoint; the role for objects alone does not allow it.
    """
    ask = gcs_utils.is_hierarchical_namespace_enabled

    def has_folders(path: Any) -> bool:
        with contextlib.suppress(Exception):
            return ask(path)
        return False

    gcs_utils.is_hierarchical_namespace_enabled = has_folders


def _says_something_new(record: logging.LogRecord) -> bool:
    """Drops traces of errors that Orbax also raises, and lines on each checkpoint being written."""
    is_from_orbax = "orbax" in record.pathname
    being_written = record.msg.startswith("Metadata file does not exist")
    return not (is_from_orbax and (record.exc_info or being_written))


@contextlib.contextmanager
def without_logs() -> Iterator[None]:
    """Silences Orbax's logs in the block: the caller reports in one line what cannot be read."""

    def is_not_from_orbax(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    loggers = [logging.getLogger("absl"), logging.getLogger()]
    for logger in loggers:
        logger.addFilter(is_not_from_orbax)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_not_from_orbax)


def array_descriptions(folder: epath.Path) -> Any:
    """Reads Orbax's metadata of the arrays in a folder, nested; raises any exception.

    `ocp.metadata` returns none if it could not read them, whatever the reason.
    """
    return asyncio_utils.run_sync(PyTreeHandler().metadata(epath.Path(folder)))


def check_metadata(checkpoint: epath.Path) -> None:
    """Raises any exception for a checkpoint because of which Orbax refuses to open the others."""
    _ = step_folders.Metadata(step=0, path=epath.Path(checkpoint)).commit_timestamp


def release_waiting_threads() -> None:
    """Ends the threads of Orbax that, after a failed save, wait for the step's folder to be made.

    They, and the end of the process, would wait for 20 minutes. No error here hides that of the
    save.
    """
    with contextlib.suppress(Exception):
        future.set_signals(
            list(synchronization.HandlerAwaitableSignal),
            operation_id=synchronization.OperationIdGenerator.get_current_operation_id(),
        )
