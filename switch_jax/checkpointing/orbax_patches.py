"""What Orbax lacks when things go wrong, by parts of it that are not public; tests watch them.

No other module uses names of Orbax that are not public.
"""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from etils import epath
from orbax.checkpoint._src import asyncio_utils
from orbax.checkpoint._src.futures import future, synchronization
from orbax.checkpoint._src.path import step as step_folders
from orbax.checkpoint._src.serialization import tensorstore_utils

# Seconds to wait for the other reads after one has failed.
_REST_TIMEOUT = 60


def apply() -> None:
    """Makes all changes that hold from now on; a second call does nothing."""
    _add_checksums()
    _wait_for_other_reads()
    logging.getLogger("absl").addFilter(_has_no_trace)


def _add_checksums() -> None:
    """Has Orbax write a checksum with every piece of an array.

    By default a flipped bit in the file comes back as another number, and nobody is told. There is
    no public option; any Orbax reads such files, since they name their codecs.
    """
    build = tensorstore_utils._build_zarr3_metadata
    if getattr(build, "with_checksums", False):
        return

    def with_checksums(*args: Any, **kwargs: Any) -> dict[str, Any]:
        metadata = build(*args, **kwargs)
        metadata["codecs"][0]["configuration"]["codecs"].append({"name": "crc32c"})
        return metadata

    with_checksums.with_checksums = True  # type: ignore[attr-defined]
    tensorstore_utils._build_zarr3_metadata = with_checksums


def _wait_for_other_reads() -> None:
    """Has Orbax wait for its other reads and writes where one fails, before it goes on.

    By default it closes the event loop under them, and each prints a stack trace when it ends.
    """
    run = asyncio_utils.run_sync
    if getattr(run, "waits", False):
        return

    def run_sync(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return run(_with_the_rest(coroutine))

    run_sync.waits = True  # type: ignore[attr-defined]
    asyncio_utils.run_sync = run_sync


async def _with_the_rest(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        return await coroutine
    except BaseException:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if rest:
            done, _ = await asyncio.wait(rest, timeout=_REST_TIMEOUT)
            for task in done:
                if not task.cancelled():
                    task.exception()  # else asyncio logs that nobody has asked for it
        raise


def _has_no_trace(record: logging.LogRecord) -> bool:
    """Not the traces, thousands of lines, that Orbax logs of what it raises too."""
    return not (record.exc_info and "orbax" in record.pathname)


@contextlib.contextmanager
def without_logs() -> Iterator[None]:
    """Within, Orbax logs nothing: for who says in a line of their own what cannot be read."""

    def is_of_others(record: logging.LogRecord) -> bool:
        return "orbax" not in record.pathname

    loggers = [logging.getLogger("absl"), logging.getLogger()]
    for logger in loggers:
        logger.addFilter(is_of_others)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_of_others)


def check_described(checkpoint: Path) -> None:
    """Raises where the folder of a checkpoint is one for which Orbax refuses all of the others."""
    _ = step_folders.Metadata(step=0, path=epath.Path(checkpoint)).commit_timestamp


def end_waiting_threads() -> None:
    """After a failed save: threads of Orbax's wait for the step's folder, maybe in vain.

    They would for 20 minutes, and so would the end of the process. This has them fail. It raises
    nothing: why the save failed is what has to be seen.
    """
    with contextlib.suppress(Exception):
        future.set_signals(
            list(synchronization.HandlerAwaitableSignal),
            operation_id=synchronization.OperationIdGenerator.get_current_operation_id(),
        )


def root(error: BaseException) -> BaseException:
    """What began a chain of exceptions."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    return error


def first_cause(error: BaseException) -> str:
    """What began a chain of exceptions, in one line."""
    error = root(error)
    lines = str(error).strip().splitlines()
    text = lines[0][:300] if lines else ""
    # The text of some is a key alone.
    return text if " " in text else f"{type(error).__name__} {text}".strip()
